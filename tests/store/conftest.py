"""Every test of the contract runs on every database."""

import pytest
from tests.support.stored import BACKENDS, prepared

from sidelight import Store


@pytest.fixture(params=sorted(BACKENDS))
def backend(request):
    return request.param


@pytest.fixture
def url(backend, tmp_path):
    """A store that is there and holds nothing."""
    return prepared(backend, tmp_path)


@pytest.fixture
def no_store(backend, tmp_path):
    """The URL of a store that is not there yet."""
    return BACKENDS[backend](tmp_path)


@pytest.fixture
def ask(url):
    """Opens the store and asks one question: ``ask(Store.timeline, "a1")``."""

    def ask(question, *arguments, **named):
        with Store(url) as store:
            answer = question(store, *arguments, **named)
            return answer if isinstance(answer, int) else list(answer)

    return ask
