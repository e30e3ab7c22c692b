"""The tree of errors is as its module's docstring shows it."""

import re

from asgictl import errors
from asgictl.errors import AsgictlError

DOCUMENTED = dict(re.findall(r"── (\w+) .*?(?:exit (\d+))?$", errors.__doc__ or "", re.MULTILINE))


def test_the_docstring_names_every_error_and_no_other() -> None:
    assert {error.__name__ for error in AsgictlError.__subclasses__()} == set(DOCUMENTED)


def test_exit_codes_are_as_documented_and_one_without_is_our_own_fault() -> None:
    for error in AsgictlError.__subclasses__():
        assert error.exit_code == int(DOCUMENTED[error.__name__] or 1), error.__name__


def test_exit_codes_are_distinct_and_leave_0_1_and_2_to_others() -> None:
    codes = [error.exit_code for error in AsgictlError.__subclasses__() if "exit_code" in vars(error)]
    assert len(codes) == len(set(codes))
    assert min(codes) > 2


def test_each_error_says_whose_fault_it_is() -> None:
    assert all(error.__doc__ for error in AsgictlError.__subclasses__())
