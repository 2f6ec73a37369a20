"""How a command ends: its exit codes, and the errors that carry one."""

from enum import IntEnum


class Exit(IntEnum):
    """What `mr` says to the shell."""

    DONE = 0
    FAILED = 1  # the job failed or was cancelled
    USAGE = 2  # the request was wrong
    UNREACHABLE = 3  # the service cannot be reached, or cannot answer now


class CommandError(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, detail: str, exit_code: Exit = Exit.USAGE) -> None:
        super().__init__(detail)
        self.exit_code = exit_code


class ApiError(CommandError):
    """The service refused; carries what its problem document said."""

    def __init__(self, status: int, problem: dict[str, object]) -> None:
        self.status = status
        self.code = str(problem.get("code") or f"http_{status}")
        self.param = problem.get("param")
        where = f" ({self.param})" if self.param else ""
        detail = problem.get("detail") or problem.get("title") or "the service gave no reason"
        request = f" [request {problem['request_id']}]" if status >= 500 and problem.get("request_id") else ""
        super().__init__(f"{self.code}: {detail}{where}{request}", Exit.USAGE if status < 500 else Exit.UNREACHABLE)


class UnreachableError(CommandError):
    """Nobody answers at the service's address."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, Exit.UNREACHABLE)
