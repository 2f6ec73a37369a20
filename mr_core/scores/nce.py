"""NCE: how much a source model's predicted class leaves unsaid about the label."""

import numpy as np

from mr_core.scores.arrays import Array, as_labels, as_probabilities, class_indices, one_hot


def nce(source_probabilities: Array, labels: Array) -> float:
    """Negative conditional entropy `-H(Y | Z)` in nats, of counts: from `-log(classes)` to 0, higher is better.

    Tran et al., Transferability and Hardness of Supervised Classification Tasks, ICCV 2019, arXiv:1908.08142, with
    `z_i = argmax Q_i`, the first of equals: `sum_{y, z} P(y, z) log(P(y, z) / P(z))`. `source_probabilities` Q is
    (n, z), rows summing to 1, and `labels` (n,). With few samples for each predicted source class it is near 0 for any
    labels. ScoreError for input that is not so, OneClass for one class.
    """
    probabilities = as_probabilities(source_probabilities)
    indices = class_indices(as_labels(labels, len(probabilities)))
    predicted = one_hot(class_indices(probabilities.argmax(1)))
    joint = one_hot(indices).T @ predicted / len(indices)
    conditional = joint / joint.sum(0)
    return float((joint * np.log(np.where(joint > 0, conditional, 1.0))).sum())
