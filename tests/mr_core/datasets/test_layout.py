import pytest

from mr_core.datasets.layout import Sample, arrange_folders, check_trainable, count_by_class, finish
from mr_core.datasets.members import Member
from mr_core.errors import ClassTooSmall, DatasetError, EmptyClass, OneClass, UnknownLayout


def files(*paths):
    return [Member(path, tuple(path.split("/")), 1, is_folder=False) for path in paths]


def folders(*paths):
    return [tuple(path.split("/")) for path in paths]


def triples(arrangement):
    return [(sample.source, sample.split, sample.class_name) for sample in arrangement.samples]


def class_files(counts, prefix=""):
    return files(*(f"{prefix}{name}/{i}.png" for name, n in counts.items() for i in range(n)))


@pytest.mark.parametrize("top", ["", "data/", "My Data/"])
def test_split_folders(top):
    arrangement = arrange_folders(files(f"{top}train/cat/1.png", f"{top}test/dog/2.png"), [])
    assert arrangement.layout == "split_folders"
    assert triples(arrangement) == [
        (f"{top}train/cat/1.png", "train", "cat"),
        (f"{top}test/dog/2.png", "test", "dog"),
    ]


@pytest.mark.parametrize("top", ["", "data/"])
def test_class_folders(top):
    arrangement = arrange_folders(files(f"{top}cat/1.png", f"{top}dog/deeper/2.png"), [])
    assert arrangement.layout == "class_folders"
    assert [sample.class_name for sample in arrangement.samples] == ["cat", "dog"]


def test_split_names_in_any_case():
    assert [s.split for s in arrange_folders(files("Train/a/1.png", "TEST/a/1.png"), []).samples] == ["train", "test"]


def test_a_class_may_be_called_train():
    arrangement = arrange_folders(files("train/1.png", "bus/1.png"), [])
    assert (arrangement.layout, {s.class_name for s in arrangement.samples}) == ("class_folders", {"train", "bus"})


def test_a_lone_class_folder_is_no_common_folder():
    with pytest.raises(OneClass, match="'cat'"):
        finish(arrange_folders(files("cat/1.png", "cat/2.png"), []))


def test_refuses_images_outside_class_folders():
    with pytest.raises(UnknownLayout, match=r"outside any class folder: '1.png'"):
        arrange_folders(files("1.png", "cat/2.png"), [])
    with pytest.raises(UnknownLayout, match=r"outside any class folder: 'train/1.png'"):
        arrange_folders(files("train/1.png", "train/cat/2.png"), [])


def test_other_files_outside_class_folders_are_ignored():
    arrangement = arrange_folders(files("data/split.py", "data/train/cat/1.png", "tool.bin"), [])
    assert sorted(arrangement.ignored) == ["data/split.py", "tool.bin"]


def test_refuses_a_validation_folder_saying_what_to_do():
    with pytest.raises(UnknownLayout, match="'val'; put their images into train or test"):
        arrange_folders(files("train/a/1.png", "val/a/1.png"), [])


def test_refuses_test_without_train():
    with pytest.raises(UnknownLayout, match="no train folder"):
        arrange_folders(files("test/a/1.png"), [])


def test_refuses_an_empty_class_folder():
    arrangement = arrange_folders(class_files({"cat": 3, "dog": 3}), folders("cat", "dog", "bird"))
    with pytest.raises(EmptyClass, match="'train/bird'"):
        finish(arrangement)


def test_refuses_a_class_in_test_alone():
    members = class_files({"cat": 2, "dog": 2}, "train/") + class_files({"bird": 1}, "test/")
    with pytest.raises(EmptyClass, match="without any training image: 'bird'"):
        finish(arrange_folders(members, []))


def test_refuses_a_class_of_one():
    with pytest.raises(ClassTooSmall, match="single training image: 'dog'"):
        finish(arrange_folders(class_files({"cat": 3, "dog": 1}), []))


def test_carves_a_fifth_of_each_class_whatever_the_order():
    members = class_files({"cat": 10, "dog": 5, "owl": 3, "yak": 2})
    arrangement, is_carved = finish(arrange_folders(members, []))
    assert is_carved
    counts = {name: (splits["train"], splits["test"]) for name, splits in count_by_class(arrangement.samples).items()}
    assert counts == {"cat": (8, 2), "dog": (4, 1), "owl": (2, 1), "yak": (2, 0)}
    assert finish(arrange_folders(members[::-1], []))[0].samples == arrangement.samples


def test_keeps_the_test_split_that_there_is():
    members = class_files({"cat": 10, "dog": 10}, "train/") + class_files({"cat": 1}, "test/")
    arrangement, is_carved = finish(arrange_folders(members, []))
    assert not is_carved
    assert sum(sample.split == "test" for sample in arrangement.samples) == 1


def test_nothing_cannot_be_trained_on():
    with pytest.raises(DatasetError, match="no image"):
        check_trainable(count_by_class([]))
    check_trainable(count_by_class([Sample(str(i), "train", name) for name in "ab" for i in range(2)]))
