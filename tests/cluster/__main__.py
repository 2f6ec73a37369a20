"""The cluster by hand: `python -m tests.cluster --data-dir X` runs it until Ctrl-C; `--toy` knows the toy kind too."""

import argparse
import time
from pathlib import Path

from tests.cluster.cluster import Cluster


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="everything it keeps is here, logs included")
    parser.add_argument("--toy", action="store_true", help="gateways and workers know the toy kind")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.data_dir, module="tests.cluster.toy_part" if arguments.toy else "cli.part")
    try:
        with cluster:
            for url in cluster.urls:
                print(f"gateway  {url}")
            print(f"key      {cluster.key}\nlogs     {cluster.folder / 'logs'}\nready", flush=True)
            while True:
                cluster.look_after()
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
