import pytest

from worker.oom import OutOfMemoryKills


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vmstat", "nr_free_pages 12\noom_kill {}\nnuma_hit 3\n"),
        ("memory.events", "low 0\nhigh 0\nmax 4\noom 4\noom_kill {}\noom_group_kill 0\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    ],
)
def test_a_rise_of_any_counter_is_an_out_of_memory_kill(tmp_path, name, text):
    steady, counter = tmp_path / "steady", tmp_path / name
    steady.write_text("oom_kill 7\n")
    counter.write_text(text.format(2))
    kills = OutOfMemoryKills((steady, counter))
    assert not kills.happened()
    counter.write_text(text.format(3))
    assert kills.happened()


def test_without_counters_the_answer_is_no(tmp_path):
    assert not OutOfMemoryKills((tmp_path / "absent",)).happened()
    assert not OutOfMemoryKills().happened()
