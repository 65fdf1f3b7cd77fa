"""The first lines that run in the application's interpreter: `python …/stardust/zygote/boot.py DESCRIPTOR`.

They make this package importable without putting the place it lives in on the module path: beside it may
stand the server's own third-party packages, and those are no business of the application.
"""

import importlib.util
import os
import sys


def main() -> int:
    directory = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # A script's directory comes first on the module path; here that would make "main" or "load" ours.
    del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "stardust", os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["stardust"] = package
    spec.loader.exec_module(package)
    zygote = importlib.import_module("stardust.zygote.main")
    code: int = zygote.main(int(sys.argv[1]))
    return code


if __name__ == "__main__":
    sys.exit(main())
