"""The command ``dgs``: dispatches to one subcommand and turns bad input into one clear line."""

import os
import select
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from dgs_lightning import __version__
from dgs_lightning.errors import InputError, is_out_of_memory, short
from dgs_lightning.files import explain_disk_errors

COMMANDS = {
    "run": "run an experiment: all its stages, skipping what is done",
    "evaluate": "evaluate one set, of ours or of other people, without an experiment file",
    "doctor": "say what would go wrong with an experiment, before it is run",
    "prepare": "write a data set as train and val folders of PNG images",
    "fit": "train: a DiT (DiffusionTask, MinimaxTask) or a classifier (ClassificationTask)",
    "validate": "evaluate a task on its validation set",
    "test": "evaluate a task on its test set",
    "predict": "encode latents, generate images or score difficulty",
    "select": "select a distilled set from an image pool",
    "crops": "cut random squares from images, and keep the easiest of each image (RDED)",
    "stitch": "put a distilled set together from such crops",
    "centers": "compute cluster centres of each class, for guidance",
    "import": "write a set of other people as an image set: tensors, parquet, tar, folders",
    "report": "write tables, figures and a page from finished runs",
    "export": "write a trained DiT for stock diffusers, or an image set as parquet, WebDataset, pt or npz",
    "publish": "send a distilled set, or trained weights, to the Hugging Face hub",
}
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


def usage() -> str:
    """Help text that lists every subcommand, made without importing any."""
    rows = "\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())
    return (
        "usage: dgs COMMAND [options]\n\n"
        "Difficulty-guided dataset distillation.\n\n"
        f"commands:\n{rows}\n\n"
        "Start with 'dgs run quickstart'. 'dgs COMMAND --help' describes each command.\n"
    )


def dispatch(command: str, args: list[str]) -> int:
    """Import the command's module, and nothing else, run it, and return the exit status."""
    if command == "doctor":
        from dgs_lightning.commands.process import prepared_process
        from dgs_lightning.doctor import main as examine

        with prepared_process():
            return examine(args)
    if command == "run":
        from dgs_lightning.experiment.run import main as run

        run(args)
    elif command == "evaluate":
        from dgs_lightning.experiment.evaluate import main as evaluate

        evaluate(args)
    elif command == "publish":
        from dgs_lightning.commands.publish import main as publish

        publish(args)
    else:
        from dgs_lightning.commands.cli import execute

        execute(command, args)
    return 0


class Stopped(SystemExit):
    """The end of the process by a signal; ``finally`` and ``with`` blocks run first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: Arguments after the program's name; those of the process by default.

    Returns:
        Exit status: 0; 1 if the doctor finds a problem; 2 if a setting or file is at fault; 130 if the user
        interrupted it; 143 if it was terminated; 129 if its terminal was closed; 141 if nobody reads its output any
        more.
    """
    _replace_closed_streams()
    if parent := os.environ.get("DGS_PARENT"):  # a stage on several devices
        from dgs_lightning.commands.process import end_with_parent

        end_with_parent(int(parent))
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if args[0] == "--version":
        sys.stdout.write(f"dgs {__version__}\n")
        return 0
    if args[0] not in COMMANDS:
        sys.stderr.write(f"dgs: no command {args[0]!r}; 'dgs --help' lists {', '.join(COMMANDS)}\n")
        return 2
    stopped: list[signal.Signals] = []  # the signals that came

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(signal.Signals(number))
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C
            signal.signal(number, stop)
    try:
        _check_text(args[1:])
        with explain_disk_errors():
            status = dispatch(args[0], args[1:])
            sys.stdout.flush()
            return status
    except BaseException as error:
        if stopped:  # a library may have turned the signal into another error
            sys.stderr.write(f"dgs {args[0]}: {SIGNALS[stopped[0]]}; the same command continues\n")
            return 128 + stopped[0]
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 128 + signal.SIGPIPE
        user_error = _user_error(error)
        if user_error is None:
            raise
        sys.stderr.write(f"dgs {args[0]}: {user_error}\n")
        return 2


def _replace_closed_streams() -> None:
    """Replace standard streams that the caller closed, as ``>&-`` does, so that no file gets their numbers."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115  (open as long as the process is)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _check_text(args: Sequence[str]) -> None:
    """Check that arguments are UTF-8: settings, records and cards, which name folders, are written in it."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            remedy = "Rename the file or folder, or give another one"
            raise InputError("arguments", f"{arg}, which has bytes that are not UTF-8", "UTF-8", remedy) from None


def _reader_is_gone() -> bool:
    """Whether nobody reads the output any more, as after ``| head``. If so, the rest of the output is dropped."""
    output = select.poll()
    output.register(1, 0)  # errors alone
    gone = bool(output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone


def _user_error(error: BaseException) -> InputError | None:
    """The error as one that the user can correct; none for a fault of the program."""
    if isinstance(error, InputError):
        return error
    if is_out_of_memory(error):
        remedy = "Close other programs, or lower batch sizes and jobs, and run the same command again"
        return InputError("memory", short(error), "enough for this command", remedy)
    if isinstance(error, OSError) and error.filename is not None:
        expected, remedy = "a file or folder that can be used", "Choose another, or change its permissions"
        return InputError(os.fspath(error.filename), str(error.strerror).lower(), expected, remedy)
    return None


if __name__ == "__main__":
    sys.exit(main())
