from autocompress.core import environment
from autocompress.overrides import PREFIX


def test_what_means_something_to_us_bears_our_name() -> None:
    names = [value for name, value in vars(environment).items() if name.isupper()]
    assert names == ["AUTOCOMPRESS_STORAGE_PASSWORD"]
    assert all(name.startswith(PREFIX) for name in names)
