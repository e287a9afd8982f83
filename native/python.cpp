// robult_edge._native: what the hot path asks of native/, without NumPy's price per call.
//
// Every function answers None where it does not take what it is given (another dtype, a stretch
// that is not contiguous, a size out of range): then the caller's own NumPy is asked.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <vector>

#include "checks.hpp"
#include "fusion.hpp"
#include "quantities.hpp"

using namespace robult;

namespace {

// A C-contiguous array of so many dimensions; `data` null if it is not one.
template <class Number, char kFormat>
class Array {
public:
    Array(PyObject* array, int dimensions) {
        if (PyObject_GetBuffer(array, &view_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
            PyErr_Clear();
            return;
        }
        held_ = true;
        const char* format = view_.format;
        if (format && *format == '<') ++format;
        if (view_.ndim != dimensions || !format || format[0] != kFormat || format[1]) return;
        data = static_cast<const Number*>(view_.buf);
    }
    ~Array() {
        if (held_) PyBuffer_Release(&view_);
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    int size(int axis) const { return static_cast<int>(view_.shape[axis]); }

    const Number* data = nullptr;

private:
    Py_buffer view_;
    bool held_ = false;
};

using Floats = Array<float, 'f'>;
using Doubles = Array<double, 'd'>;

template <class Number>
PyObject* tuple_of(const Number* numbers, int n) {
    PyObject* made = PyTuple_New(n);
    for (int i = 0; made && i < n; ++i) {
        PyObject* number = PyFloat_FromDouble(numbers[i]);
        if (!number) Py_CLEAR(made);
        else PyTuple_SET_ITEM(made, i, number);
    }
    return made;
}

// Room for the numbers of one call; the interpreter's lock is held all along.
template <class Number>
Number* room(std::size_t n) {
    static std::vector<Number> kept;
    if (kept.size() < n) kept.resize(n);
    return kept.data();
}

PyObject* extremes_(PyObject*, PyObject* array) {
    const Floats samples(array, 2);
    if (!samples.data || samples.size(0) < 1 || samples.size(1) < 1) Py_RETURN_NONE;
    const int channels = samples.size(1);
    float* top = room<float>(2 * channels);
    extremes({samples.data, samples.size(0), channels}, top, top + channels);
    return Py_BuildValue("NN", tuple_of(top, channels), tuple_of(top + channels, channels));
}

PyObject* level_(PyObject*, PyObject* array) {
    const Floats samples(array, 2);
    if (!samples.data || samples.size(0) < 1 || samples.size(1) < 1) Py_RETURN_NONE;
    double* mean = room<double>(kRows * samples.size(1));
    level({samples.data, samples.size(0), samples.size(1)}, mean);
    return tuple_of(mean, samples.size(1));
}

PyObject* length_(PyObject*, PyObject* array) {
    const Floats samples(array, 2);
    if (!samples.data || samples.size(0) < 1) Py_RETURN_NONE;
    return PyFloat_FromDouble(length({samples.data, samples.size(0), samples.size(1)}));
}

PyObject* motion_(PyObject*, PyObject* const* given, Py_ssize_t n) {
    if (n != 2) return PyErr_Format(PyExc_TypeError, "motion(samples, per_usual)");
    const Floats samples(given[0], 2), per_usual(given[1], 1);
    if (!samples.data || !per_usual.data || per_usual.size(0) != samples.size(1) ||
        samples.size(0) < kSpikes + 2 || samples.size(1) < 1) {
        Py_RETURN_NONE;
    }
    const int channels = samples.size(1);
    double* repeats = room<double>(2 * channels);
    float* bends = room<float>(static_cast<std::size_t>(samples.size(0)) * channels);
    const double spikiness = motion({samples.data, samples.size(0), channels}, per_usual.data,
                                    bends, repeats, repeats + channels);
    return Py_BuildValue("NNd", tuple_of(repeats, channels),
                         tuple_of(repeats + channels, channels), spikiness);
}

// clean(samples, fresh, honest, packed limits, per_usual)
PyObject* clean_(PyObject*, PyObject* const* given, Py_ssize_t n) {
    if (n != 5) {
        return PyErr_Format(PyExc_TypeError, "clean(samples, fresh, honest, packed, per_usual)");
    }
    const long fresh = PyLong_AsLong(given[1]), honest = PyLong_AsLong(given[2]);
    if (PyErr_Occurred()) return nullptr;
    const Floats samples(given[0], 2), per_usual(given[4], 1);
    const Doubles packed(given[3], 1);
    if (!samples.data || !per_usual.data || !packed.data) Py_RETURN_NONE;
    const int rows = samples.size(0), channels = samples.size(1);
    if (channels < 1 || per_usual.size(0) != channels || fresh < 1 || fresh > rows ||
        honest > rows ||
        packed.size(0) != Limits::kNumbers + Limits::kPerChannel * channels) {
        Py_RETURN_NONE;
    }
    const Limits limits(packed.data, channels);
    if (limits.hop < 1 || (limits.moves && limits.hop < kSpikes + 2)) Py_RETURN_NONE;
    const Scratch scratch{room<double>(kRows * channels),
                          room<float>(static_cast<std::size_t>(rows + 2) * channels)};
    const Stretch x{samples.data, rows, channels};
    return PyBool_FromLong(clean(x, static_cast<int>(fresh), static_cast<int>(honest), limits,
                                 per_usual.data, scratch));
}

// fuse(rule, alive, uses, weights, temperatures, logits, head or None): the fused probabilities of
// one window, and each branch's own, NaN of those that are not alive.
PyObject* fuse_(PyObject*, PyObject* const* given, Py_ssize_t n) {
    if (n != 7) {
        return PyErr_Format(PyExc_TypeError,
                            "fuse(rule, alive, uses, weights, temperatures, logits, head)");
    }
    const long rule = PyLong_AsLong(given[0]), alive = PyLong_AsLong(given[1]),
               uses = PyLong_AsLong(given[2]);
    if (PyErr_Occurred()) return nullptr;
    const Floats weights(given[3], 1), temperatures(given[4], 1), logits(given[5], 2);
    if (!weights.data || !temperatures.data || !logits.data) Py_RETURN_NONE;
    const int m = logits.size(0), k = logits.size(1);
    if (m < 1 || m > kMaxModalities || k < 1 || weights.size(0) != m + 1 ||
        temperatures.size(0) != m + 1) {
        Py_RETURN_NONE;
    }
    SubsetRow row{0, static_cast<std::uint32_t>(uses), {}};
    for (int i = 0; i <= m; ++i) row.weights[i] = weights.data[i];
    const std::uint32_t mask = static_cast<std::uint32_t>(alive);
    Fusion x{{}, &mask, temperatures.data, &row, 1, m, k, static_cast<Rule>(rule)};
    for (int i = 0; i < m; ++i) x.logits[i] = logits.data + static_cast<std::size_t>(i) * k;
    float* p = room<float>(static_cast<std::size_t>(m + 1) * k);
    fill(Single{}, k, 0.0f, p);
    if (given[6] == Py_None) {
        row.weights[m] = 0;
        x.rule == Rule::pool ? add_pool(Single{}, x, 0, row, p) : add_mean(Single{}, x, 0, row, p);
    } else {
        const Floats head(given[6], 1);
        if (!head.data || head.size(0) != k) Py_RETURN_NONE;
        x.logits[m] = head.data;
        x.rule == Rule::pool ? add_pool(Single{}, x, 0, row, p) : add_mean(Single{}, x, 0, row, p);
    }
    each_branch(Single{}, x, 0, p + k);
    PyObject* branches = PyTuple_New(m);
    for (int i = 0; branches && i < m; ++i) {
        PyObject* branch = tuple_of(p + (i + 1) * k, k);
        if (!branch) Py_CLEAR(branches);
        else PyTuple_SET_ITEM(branches, i, branch);
    }
    return Py_BuildValue("NN", tuple_of(p, k), branches);
}

// conflict(rows): of tuples of one length.
PyObject* conflict_(PyObject*, PyObject* rows) {
    if (!PyList_Check(rows) || PyList_GET_SIZE(rows) < 1) Py_RETURN_NONE;
    const Py_ssize_t n = PyList_GET_SIZE(rows);
    Py_ssize_t k = -1;
    double* p = nullptr;
    for (Py_ssize_t i = 0; i < n; ++i) {
        PyObject* row = PyList_GET_ITEM(rows, i);
        if (!PyTuple_Check(row)) Py_RETURN_NONE;
        if (k < 0) {
            k = PyTuple_GET_SIZE(row);
            p = room<double>(static_cast<std::size_t>(n) * k);
        }
        if (PyTuple_GET_SIZE(row) != k) Py_RETURN_NONE;
        for (Py_ssize_t j = 0; j < k; ++j) {
            PyObject* number = PyTuple_GET_ITEM(row, j);
            if (!PyFloat_Check(number)) Py_RETURN_NONE;
            p[i * k + j] = PyFloat_AS_DOUBLE(number);
        }
    }
    return PyFloat_FromDouble(conflict(p, static_cast<int>(n), static_cast<int>(k)));
}

PyMethodDef functions[] = {
    {"extremes", extremes_, METH_O, "Largest and smallest of samples [n, C] per channel."},
    {"level", level_, METH_O, "Mean of samples [n, C] per channel."},
    {"length", length_, METH_O, "Mean length of sample vectors [n, C]."},
    {"motion", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(motion_)), METH_FASTCALL,
     "Repeats [C], roughness [C] and spikiness of samples [n, C]."},
    {"clean", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(clean_)), METH_FASTCALL,
     "Whether a sensor's newest samples keep to its limits."},
    {"fuse", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fuse_)), METH_FASTCALL,
     "Fused probabilities [K], and each branch's [M][K]."},
    {"conflict", conflict_, METH_O, "Divergence of a list of distributions, tuples [K]."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "native/ for the hot path.", -1,
                      functions, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&module); }
