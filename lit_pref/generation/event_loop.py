"""What an asynchronous generator gives, for callers that are not asynchronous: scripts, threads, notebooks.

Its requests go on only while the caller waits for the next answer. Not covered: several callers of one generator.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from lit_pref.types import Drawn


def answers_of(asked: AsyncIterator[Drawn]) -> Iterator[Drawn]:
    """The answers one by one; what is under way is cancelled where the caller leaves."""
    steps = _stepped(asked)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        yield from steps
        return
    # A notebook's own loop runs in this thread.
    with ThreadPoolExecutor(max_workers=1) as apart:
        try:
            while (drawn := apart.submit(next, steps, None).result()) is not None:
                yield drawn
        finally:
            apart.submit(steps.close).result()


def _stepped(asked: AsyncIterator[Drawn]) -> Generator[Drawn, None, None]:
    async def following() -> Drawn | None:
        return await anext(asked, None)

    with asyncio.Runner() as runner:
        while (drawn := runner.run(following())) is not None:
            yield drawn
