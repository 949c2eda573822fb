"""The model's own order of the classes goes before the data's."""

from pipeline.labels import true_classes, why_unjudged


def test_images_get_the_index_that_the_model_knows_their_class_by():
    assert true_classes(["b", "a", "d", "b"], ["a", "b", "c", "d"]).tolist() == [1, 0, 3, 1]


def test_a_class_that_the_model_does_not_know_leaves_all_without():
    assert true_classes(["b", "x"], ["a", "b"]) is None
    assert true_classes(["b"], None) is None


def test_why_there_are_no_accuracies():
    assert why_unjudged(["a"], None).startswith("the weights do not say which classes they tell apart")
    assert why_unjudged([""], ["a"]) == "the images are in no class folders, so they have no labels"
    assert why_unjudged(["b", "x"], ["a", "b"]) == "the weights do not know class 'x' of the images"
    assert why_unjudged(["z", "x", "y"], ["a"]).endswith("class 'x' and 2 others of the images")
