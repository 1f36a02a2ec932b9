"""A process that makes random calls on a coordinator until it is killed.

The calls are valid and invalid.
"""

import random
import sys
from pathlib import Path

from outfeed.errors import DatabaseBusy, InvalidTransition, UnknownName
from outfeed.store import database as db
from outfeed.swarm.coordinator import Coordinator
from outfeed.swarm.store.swarm import read_transaction


def main(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    coordinator = Coordinator(db.at(path), auction_secs=0.05, agent_timeout_secs=2)
    print("running", flush=True)
    while True:
        try:
            call(coordinator, path, rng)
        except (InvalidTransition, UnknownName, DatabaseBusy):
            pass


def call(coordinator: Coordinator, path: Path, rng: random.Random) -> None:
    with read_transaction(db.at(path)) as view:
        agents = [agent.id for agent in view.agents(limit=8)[0]] + ["nobody"]
        tasks = view.tasks(limit=8)[0]
    task_id = rng.choice([task.id for task in tasks] + ["nothing"])
    holder = next((task.agent_id for task in tasks if task.id == task_id), None)
    agent_id = holder if holder and rng.random() < 0.9 else rng.choice(agents)
    rng.choices(
        [
            lambda: coordinator.join(f"agent of {rng.random()}"),
            lambda: coordinator.leave(agent_id),
            lambda: coordinator.heartbeat(agent_id),
            lambda: coordinator.post("do something"),
            lambda: coordinator.bid(task_id, agent_id, rng.randint(0, 5)),
            lambda: coordinator.start(task_id, agent_id),
            lambda: coordinator.complete(task_id, agent_id, {"by": agent_id}),
            lambda: coordinator.fail(task_id, agent_id, "no luck"),
            lambda: coordinator.use_tool(agent_id, "hammer", "called", task_id=task_id),
            lambda: [coordinator.close_auction(one) for one in coordinator.due_auctions()],
            lambda: [coordinator.expire(one) for one in coordinator.overdue_agents()],
        ],
        weights=(4, 2, 2, 4, 24, 12, 12, 3, 4, 12, 2),
    )[0]()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
