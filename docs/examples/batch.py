"""A batch: pandas reads, pools of threads and processes work, tenacity tries again.

python batch.py [fork | spawn | forkserver]
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pandas as pd
from joblib import Parallel, delayed
from tenacity import retry, stop_after_attempt

import sidelight
from sidelight import arg, bind, emits, result, with_context

attempts: dict[str, int] = {}


@emits("shop_summed", artifact_id=arg.shop, total=result)
def total(shop: str, sales: pd.DataFrame) -> float:
    """A process of a pool runs it. ``total`` is a scalar of numpy, and becomes a number."""
    return sales.loc[sales["shop"] == shop, "amount"].sum()


@emits("report_sent", failure="report_not_sent", artifact_id=arg.shop)  # one event: the last word
@retry(stop=stop_after_attempt(3), reraise=True)
@emits("sending_tried", failure="sending_failed", artifact_id=arg.shop)  # an event for each attempt
def send(shop: str) -> None:
    """A thread of a pool runs it; the mail server is busy at the first attempt."""
    attempts[shop] = attempts.get(shop, 0) + 1
    if attempts[shop] == 1:
        raise ConnectionError("the mail server is busy")


@emits("shop_archived", artifact_id=arg.shop)
def archive(shop: str) -> str:
    """A worker of joblib runs it."""
    return shop


def main(method: str) -> None:
    """Run the batch, with processes that begin by ``method``."""
    sidelight.configure("sqlite:///events.db")
    sales = pd.DataFrame({"shop": ["north", "south", "north"], "amount": [1.5, 2.0, 3.0]})
    shops = sorted(sales["shop"].unique())
    processes = multiprocessing.get_context(method)
    with bind(run=f"by {method}"):
        with ProcessPoolExecutor(2, mp_context=processes) as pool:
            list(pool.map(with_context(total), shops, [sales] * len(shops)))
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(with_context(send), shops))
        Parallel(n_jobs=2)(delayed(with_context(archive))(shop) for shop in shops)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "spawn")
