"""The errors a user meets: each says what is wrong, what was got, and how to mend it."""


class RobultError(Exception):
    """Base of every error that is the user's to mend; its text is one sentence for a terminal."""


class SpecError(RobultError, ValueError):
    """A data set's TOML or a modality's description is wrong."""


class BundleError(RobultError, ValueError):
    """A bundle cannot be trusted or understood."""


class EngineError(RobultError, RuntimeError):
    """A TensorRT engine cannot be built or run here."""


class PolicyError(RobultError, ValueError):
    """A deployment's policy contradicts itself, or its bundle."""


class KeysError(RobultError, ValueError):
    """A key or token is missing or is none."""


class FrameError(RobultError, ValueError):
    """A frame from a sensor is malformed. ``reason`` is a short, countable name for it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class MissingExtraError(RobultError, ImportError):
    """An optional dependency is not installed; the text names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; mend: pip install 'robult-edge[{extra}]'")
