"""Check that packages whose binary builds must agree import together, and say their versions."""

import importlib
import sys

PACKAGES = ("torch", "torchrec", "fbgemm_gpu", "ray", "xgboost", "onnxruntime")


def main() -> int:
    versions = []
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        except Exception as e:  # any failure to load a binary package is what we look for
            print(
                f"setup: {name} does not import ({e}); delete .venv and run make setup again.",
                file=sys.stderr,
            )
            return 1
        versions.append(f"{name} {getattr(module, '__version__', '?')}")
    print("setup: ready with " + ", ".join(versions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
