"""Steps that run programs of the guest.

`check` is asked on the guest as it is, before anything is done: a guest whose programs cannot run
here, or whose packages nobody can install, is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imgtools.guest.customize import chroot, package_commands, package_output, repository
from imgtools.guest.customize.package_commands import Task
from imgtools.guest.steps import Done
from imgtools.guest.steps.base import Always
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Always):
    """A shell command of the guest."""

    command: str

    @property
    def what(self) -> str:
        """What is run."""
        return self.command

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError if programs of the guest cannot run."""
        chroot.check(tree, "--run-command")

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Run it."""
        script = self.command.encode(errors="surrogateescape")
        chroot.run_checked(guest, script, what=self.command)
        return chroot.ran_done(self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script(Always):
    """A script or program of this host, run in the guest."""

    file: Path

    @property
    def what(self) -> str:
        """What is run."""
        return str(self.file)

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError if programs of the guest cannot run."""
        chroot.check(tree, "--run")

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Run it."""
        ran = chroot.run_file(guest, self.file, what=self.what)
        chroot.checked(guest, ran, what=self.what)
        return chroot.ran_done(self.what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages(Always):
    """Install, remove or update packages by the guest's package manager.

    ``folder`` is one of this host with the packages, which are then taken from nowhere else.
    """

    task: Task
    names: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def what(self) -> str:
        """What is run."""
        return f"{self.task} {','.join(self.names)}".strip()

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError if that cannot work in this guest."""
        chroot.check(tree, f"--{self.task}")
        manager = package_commands.manager_of(tree, f"--{self.task}")
        if self.folder is not None:
            repository.check_kind(self.folder, manager, f"--{self.task}")

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Do it."""
        manager = package_commands.manager_of(guest, f"--{self.task}")
        if self.folder is None:
            script = package_commands.script(manager, self.task, self.names)
            package_output.run_checked(guest, script, what=self.what)
            return chroot.ran_done(self.what)
        with chroot.work_folder(guest) as work:
            script = repository.script(guest, work, self.folder, manager, self.task, self.names)
            hint = f"packages come from {self.folder} alone"
            package_output.run_checked(guest, script, what=self.what, hint=hint)
        return chroot.ran_done(self.what)
