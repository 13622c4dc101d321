"""Every test of the contract runs on every database."""

import pytest
from tests.support.stored import BACKENDS

from sidelight import Store


@pytest.fixture(params=sorted(BACKENDS))
def url(request, tmp_path):
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def ask(url):
    """Opens the store and asks one question: ``ask(Store.timeline, "a1")``."""

    def ask(question, *arguments, **named):
        with Store(url) as store:
            answer = question(store, *arguments, **named)
            return answer if isinstance(answer, int) else list(answer)

    return ask
