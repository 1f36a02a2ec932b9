"""Jobs in huey's SQLite storage.

Usage: huey_jobs.py DATABASE create|write COUNT. `write` enqueues jobs, and executes them as a worker of huey does.
"""

import sys

from huey import SqliteHuey

database, command, *arguments = sys.argv[1:]
huey = SqliteHuey(filename=database)


@huey.task()
def double(number: int) -> int:
    return 2 * number


if command == "write":
    results = []
    for number in range(int(arguments[0])):
        results.append(double(number))
        if number % 5 == 4:
            while (task := huey.dequeue()) is not None:
                huey.execute(task)
    assert [result.get() for result in results] == [2 * number for number in range(len(results))]
