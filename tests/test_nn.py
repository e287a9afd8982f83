"""The network: what is exported equals what was trained, and absent sensors are not seen."""

import warnings

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch

from robult_edge.errors import RobultError, SpecError
from robult_edge.modality import ChannelStats, ModalitySpec
from robult_edge.nn import checkpoint
from robult_edge.nn.encoders import ENCODERS, default_encoder
from robult_edge.nn.robult import Robult, encoder_names

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring


def modality(name, channels=3, window=128, size=None, offset=5.0):
    c = tuple(f"c{i}" for i in range(channels))
    stats = ChannelStats(
        mean=(offset,) * channels, std=(2.0,) * channels, low=(0.0,) * channels,
        high=(1.0,) * channels, spread=(0.0,) * channels,
    )  # fmt: skip
    return ModalitySpec(
        name=name, channels=c, unit="1", rate_hz=50.0, window=window, hop=window, timeout_s=1.0,
        size=size, stats=stats,
    )  # fmt: skip


MODALITIES = (
    modality("imu.left"),
    modality("env", 2, 16),
    modality("level", 4, 1),
    modality("cam", 3, 1, (24, 32)),
)


def inputs(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        m.name: 5 + 2 * torch.randn(n, *m.window_shape, generator=generator) for m in MODALITIES
    }


def make(classifier_input="z", **kwargs):
    torch.manual_seed(0)
    return Robult(MODALITIES, 5, classifier_input=classifier_input, **kwargs).eval()


@pytest.mark.parametrize("classifier_input", ["z", "zu"])
def test_branches_and_head_give_the_networks_answers(classifier_input):
    model, x = make(classifier_input), inputs(6)
    present = torch.ones(6, 4, dtype=torch.bool)
    out = model(x, present)
    for i, m in enumerate(MODALITIES):
        logits, h = model.branch(m.name)(x[m.name])
        torch.testing.assert_close(logits, out.logits[:, i])
        torch.testing.assert_close(h, out.h[:, i])
        assert logits.shape == (6, 5)
        assert h.shape == (6, 64)
    torch.testing.assert_close(model.head()(out.h, present), out.logits_0)


@pytest.mark.parametrize("classifier_input", ["z", "zu"])
def test_head_ignores_absent_latents_exactly(classifier_input):
    head = make(classifier_input).head()
    h = torch.randn(7, 4, 64)
    for mask in range(1, 16):
        alive = (torch.tensor(mask) >> torch.arange(4) & 1).bool().expand(7, 4)
        rubbish = torch.where(alive[:, :, None], h, torch.nan)
        assert torch.equal(head(h, alive), head(rubbish, alive))
        assert head(h, alive).isfinite().all()


def test_an_absent_modality_does_not_change_another_ones_latent_in_training():
    model, x = make().train(), inputs(8)
    present = torch.ones(8, 4, dtype=torch.bool)
    present[:, 1] = False
    present[2, 0] = False
    torch.manual_seed(1)
    first = model.f(x, present)
    garbage = {name: v.clone() for name, v in x.items()}
    garbage["env"][:] = torch.nan
    garbage["imu.left"][2] = torch.nan
    torch.manual_seed(1)
    assert torch.equal(first, model.f(garbage, present))
    assert (first[:, 1] == 0).all()


def test_reconstruction_trains_g_and_r_alone():
    model = make()
    h = torch.randn(6, 4, 64, requires_grad=True)
    model.reconstruct(h, model.g_0(h)).sum().backward()
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {"g", "r"}
    assert h.grad is None


@pytest.mark.parametrize(("encoder", "most"), [("conv1d", 70_000), ("rocket", 80_000)])
def test_a_branch_is_small(encoder, most):
    model = make(encoders={"imu.left": encoder})
    branch = model.branch("imu.left")
    assert sum(p.numel() for p in branch.parameters()) < most


def test_what_is_made_of_fixed_features_begins_at_nothing_and_is_bounded():
    model, x = make(encoders={"imu.left": "rocket"}), inputs(6)["imu.left"]
    model.f.fit({"imu.left": x.numpy()} | {n: x[:0].numpy() for n in ("env", "level", "cam")},
                np.random.default_rng(0))  # fmt: skip
    normalise, rocket, _ = model.f[0]
    torch.testing.assert_close(rocket(normalise(x)), rocket.learned(normalise(x)))
    model.branch("imu.left")(x)[0].sum().backward()
    assert rocket.project[1].weight.grad.abs().max() > 0

    far = rocket.fixed(1e3 * x)
    furthest = far.abs().amax(0).argmax()
    assert far[:, furthest].abs().max() > 3
    with torch.no_grad():
        rocket.project[1].weight[:, furthest] = 1.0
        made = rocket(1e3 * x) - rocket.learned(1e3 * x)
    torch.testing.assert_close(made[:, 0], far[:, furthest].clamp(-3, 3) / 4, atol=1e-3, rtol=0)


def test_in_training_one_window_in_four_reaches_fixed_features_with_noise():
    normalise, rocket, _ = make().f[0]
    seen = []
    rocket.fixed.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    x = normalise(inputs(2000)["imu.left"])
    with torch.no_grad():
        rocket(x)
        rocket.train()(x)
    torch.testing.assert_close(seen[0], x)
    level = (seen[1] - x).std((1, 2))
    noisy = level > 0
    assert 0.2 < noisy.float().mean() < 0.3
    assert 0.015 < level[noisy].min() < 0.03
    assert 0.4 < level[noisy].max() < 0.6
    assert level[noisy].median() == pytest.approx(0.1, rel=0.2)  # between 0.02 and 0.5 in octaves


def test_defaults_follow_the_windows_shape():
    assert [default_encoder(m) for m in MODALITIES] == ["rocket", "conv1d", "mlp", "conv2d"]
    assert encoder_names(MODALITIES, {"env": "gru"})["env"] == "gru"
    with pytest.raises(SpecError, match=r"'lidar'; the modalities are imu\.left, env"):
        encoder_names(MODALITIES, {"lidar": "gru"})
    with pytest.raises(SpecError, match="'lstm'; it must be one of rocket, conv1d, gru"):
        make(encoders={"env": "lstm"})
    with pytest.raises(SpecError, match="'gru' does not take windows of shape"):
        make(encoders={"cam": "gru"})
    with pytest.raises(SpecError, match="stats are missing"):
        Robult((msgspec.structs.replace(MODALITIES[0], stats=None),), 2)


def onnx_session(module, arguments, names, path):
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            module.eval(), arguments, path, dynamo=True, opset_version=20, input_names=names,
            dynamic_shapes=tuple({0: batch} for _ in arguments), verbose=False,
        )  # fmt: skip
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", [*ENCODERS, "head"])
def test_everything_exports_with_a_dynamic_batch(name, tmp_path):
    path = tmp_path / "x.onnx"
    if name == "head":
        module = make("zu").head()
        samples = {n: (torch.randn(n, 4, 64), torch.rand(n, 4) < 0.5) for n in (1, 2, 5)}
        names = ["h", "alive"]
    else:
        m = MODALITIES[3] if name == "conv2d" else MODALITIES[0]
        module = make("zu", encoders={m.name: name}).branch(m.name)
        samples = {n: (inputs(n)[m.name],) for n in (1, 2, 5)}
        names = ["x"]
    session = onnx_session(module, samples[2], names, str(path))
    for sample in samples.values():
        feed = {k: v.numpy() for k, v in zip(names, sample, strict=True)}
        got = session.run(None, feed)
        with torch.no_grad():
            want = module(*sample)
        for g, w in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
            np.testing.assert_allclose(g, w.numpy(), atol=2e-5)


def info(model):
    return checkpoint.RunInfo(
        dataset="mine.toml", classes=tuple("abcde"), modalities=MODALITIES, width=model.width,
        encoders=encoder_names(MODALITIES, {"env": "gru"}),
        classifier_input=model.classifier_input, seed=1, labels=0.05, label_counts=(1, 2, 3, 4, 5),
        epochs=7, versions={"torch": "2"}, metrics={"oof/mean/env": 0.5},
        config={"lr": 1e-3},
    )  # fmt: skip


def test_a_saved_model_comes_back(tmp_path):
    model = make("zu", encoders={"env": "gru"})
    checkpoint.save_model(tmp_path, model.state_dict(), info(model))
    again, said = checkpoint.load_model(tmp_path)
    assert said == info(model)
    assert not again.training
    present = torch.ones(3, 4, dtype=torch.bool)
    assert torch.equal(again(inputs(3), present).logits, model(inputs(3), present).logits)


def test_a_folder_without_a_fitting_run_is_refused(tmp_path):
    with pytest.raises(RobultError, match=r"no finished run.*python -m train"):
        checkpoint.load_model(tmp_path)
    model = make(encoders={"env": "gru"})
    future = msgspec.structs.replace(info(model), version=9)
    checkpoint.save_model(tmp_path, model.state_dict(), future)
    with pytest.raises(RobultError, match=r"version 9;.*train again"):
        checkpoint.load_model(tmp_path)
    checkpoint.save_model(tmp_path, {"c.bias": torch.zeros(5)}, info(model))
    with pytest.raises(RobultError, match=r"no fitting model\.safetensors"):
        checkpoint.load_model(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RobultError, match="cannot be read"):
        checkpoint.load_model(tmp_path)
