import pytest
import structural


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    return structural.bases_of(tmp_path_factory)
