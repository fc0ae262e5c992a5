import store.errors
from store.errors import RelabelError


def test_every_error_is_a_relabel_error_and_a_fitting_builtin() -> None:
    errors = [value for value in vars(store.errors).values() if isinstance(value, type)]
    assert len(errors) > 10
    for error in errors:
        assert issubclass(error, RelabelError)
        if error is not RelabelError:
            builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert builtins[0] is not Exception, error
