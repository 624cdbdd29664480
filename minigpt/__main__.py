"""`python -m minigpt`, and the `minigpt` command."""

import os
import sys
from collections.abc import Sequence

from minigpt import options
from minigpt.commands import doctor
from minigpt.doctor.report import brief


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 after an error, which is told in one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console may lack characters of the corpus
            stream.reconfigure(errors="replace")
    try:
        try:
            if (sys.argv[1:] if argv is None else argv)[:1] == ["doctor"]:
                return options.run([doctor], argv)
            from minigpt import cli  # here, because it chooses the backend, which may not be there

            return cli.run(argv)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone is no error
    except KeyboardInterrupt:
        print("minigpt: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"minigpt: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"minigpt: error: not enough memory: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not _of_the_gpu(error):
            raise
        print(f"minigpt: error: {brief(error)} (see python -m minigpt doctor)", file=sys.stderr)
        return 2


def _of_the_gpu(error: Exception) -> bool:
    """Whether CUDA failed, and not our program: CuPy's own errors, and libraries it lacks."""
    home = type(error).__module__.split(".")[0]
    return home in ("cupy", "cupy_backends", "cuda") or "CuPy failed to load" in str(error)


if __name__ == "__main__":
    sys.exit(main())
