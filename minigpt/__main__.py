"""`python -m minigpt`, and the `minigpt` command."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 after an error, which is told in one line."""
    try:
        from minigpt import cli  # here, because it chooses the backend, which may not be there

        return cli.run(argv)
    except (ValueError, ModuleNotFoundError) as error:
        print(f"minigpt: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minigpt: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
