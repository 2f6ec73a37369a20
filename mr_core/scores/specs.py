"""Every score: its hyper-parameters, paper, what it reads and which way is better. Torch-free, and numpy-free."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mr_core.scores.base import Direction, Read, ScoreSpec

if TYPE_CHECKING:
    from mr_core.scores.arrays import Array

Ridge = Annotated[float, Field(gt=0, le=1e6, description="Times the mean eigenvalue of the kernel.")]
Seed = Annotated[int, Field(ge=0, lt=2**31, description="Seed of every random choice.")]


class LeepSpec(ScoreSpec):
    """How well labels follow from the source model's probabilities (LEEP), at most 0.

    Nguyen et al., LEEP: A New Measure to Evaluate Transferability of Learned Representations, 2020. arXiv:2002.12462
    """

    reads: ClassVar[tuple[Read, ...]] = ("source_logits", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["leep"] = "leep"
    temperature: float = Field(
        1.0, ge=1e-3, le=1e3, description="Divides the logits before the softmax; 1 leaves CLIP's nearly one-hot."
    )

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.leep import leep, softmax

        return leep(softmax(inputs["source_logits"], temperature=self.temperature), inputs["labels"])


class NceSpec(ScoreSpec):
    """What the source model's predicted class leaves unsaid about the label (NCE), in nats, at most 0.

    Tran et al., Transferability and Hardness of Supervised Classification Tasks, 2019. arXiv:1908.08142
    """

    reads: ClassVar[tuple[Read, ...]] = ("source_logits", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["nce"] = "nce"

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.leep import softmax
        from mr_core.scores.nce import nce

        return nce(softmax(inputs["source_logits"]), inputs["labels"])


class LogmeSpec(ScoreSpec):
    """Log evidence of a Bayesian linear model of the labels on the features (LogME), for each sample.

    You et al., LogME: Practical Assessment of Pre-trained Models for Transfer Learning, 2021. arXiv:2102.11005; fixed
    points as in Ranking and Tuning Pre-trained Models, 2022. arXiv:2110.10545
    """

    reads: ClassVar[tuple[Read, ...]] = ("features", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["logme"] = "logme"
    form: Literal["evidence", "published"] = Field(
        "evidence",
        description="published is the papers' later code, which leaves out part of a sum where samples are fewer than "
        "dimensions, so that width alone counts for a source; evidence has the whole sum.",
    )

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.logme import logme

        return logme(inputs["features"], inputs["labels"], form=self.form)


class HScoreSpec(ScoreSpec):
    """How far class means lie apart, in units of the features' covariance (H-score).

    Bao et al., An Information-Theoretic Approach to Transferability in Task Transfer Learning, 2019; with the shrunk
    covariance of Ibrahim et al., Newer Is Not Always Better, 2021. arXiv:2110.06893
    """

    reads: ClassVar[tuple[Read, ...]] = ("features", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["h_score"] = "h_score"
    covariance: Literal["auto", "sample", "shrunk"] = Field(
        "auto",
        description="sample is the first paper's, and says nothing where samples are no more than dimensions; auto is "
        "shrunk there.",
    )

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.h_score import h_score

        return h_score(inputs["features"], inputs["labels"], covariance=self.covariance)


class KiteSpec(ScoreSpec):
    """Features that separate the classes and do not resemble those of random weights (KITE), at linear kernels.

    Guo, KITE: A Kernel-based Improved Transferability Estimation Method, 2024. arXiv:2405.01603
    """

    reads: ClassVar[tuple[Read, ...]] = ("features", "random_features", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["kite"] = "kite"

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.kite import kite

        return kite(inputs["features"], inputs["labels"], inputs["random_features"])


class SlicedWassersteinSpec(ScoreSpec):
    """Sliced Wasserstein-1 distance of target from source samples in source logits; below the true distance.

    As Yang et al. measure how a reprogrammed model stands to its bound: Voice2Series, 2021. arXiv:2106.09296
    """

    reads: ClassVar[tuple[Read, ...]] = ("source_logits", "reference_logits")
    direction: ClassVar[Direction] = "lower"

    kind: Literal["sliced_wasserstein"] = "sliced_wasserstein"
    n_projections: int = Field(1000, ge=1, le=100_000, description="Random directions, averaged.")
    seed: Seed = 0

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.sliced_wasserstein import sliced_wasserstein

        reference, target = inputs["reference_logits"], inputs["source_logits"]
        return sliced_wasserstein(reference, target, n_projections=self.n_projections, seed=self.seed)


class KernelTargetAlignmentSpec(ScoreSpec):
    """Cosine between the centred kernel and the centred kernel of the labels.

    Cortes et al., Algorithms for Learning Kernels Based on Centered Alignment, 2012. arXiv:1203.0550
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["kernel_target_alignment"] = "kernel_target_alignment"

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.alignment import kernel_target_alignment
        from mr_core.scores.arrays import as_labelled_kernel

        task = as_labelled_kernel(inputs["kernel"], inputs["labels"])
        return kernel_target_alignment(task.kernel, task.targets)


class LabelEnergySpec(ScoreSpec):
    """Share of the centred labels that lies in the span of the kernel's top k eigenvectors.

    Arora et al., Fine-Grained Analysis of Optimization and Generalization, 2019. arXiv:1901.08584
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["label_energy"] = "label_energy"
    k: int | None = Field(None, ge=1, description="Eigenvectors; as many as classes if unset.")

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.arrays import as_labelled_kernel
        from mr_core.scores.spectral import eigenpairs, label_energy

        task = as_labelled_kernel(inputs["kernel"], inputs["labels"])
        vectors = eigenpairs(task.kernel)[1]
        return label_energy(vectors, task.targets, self.k or min(task.targets.shape[1], len(vectors)))


class EffectiveRankSpec(ScoreSpec):
    """How many eigenvalues carry the kernel: exp of the entropy of their shares.

    Roy and Vetterli, The Effective Rank: A Measure of Effective Dimensionality, 2007.
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel",)
    direction: ClassVar[Direction] = "context"

    kind: Literal["effective_rank"] = "effective_rank"

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.arrays import as_kernel
        from mr_core.scores.spectral import effective_rank, eigenpairs

        return effective_rank(eigenpairs(as_kernel(inputs["kernel"]))[0])


class ParticipationRatioSpec(ScoreSpec):
    """How many eigenvalues carry the kernel: its squared trace over the trace of its square; at most effective rank.

    Gao et al., A Theory of Multineuronal Dimensionality, Dynamics and Measurement, 2017.
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel",)
    direction: ClassVar[Direction] = "context"

    kind: Literal["participation_ratio"] = "participation_ratio"

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.arrays import as_kernel
        from mr_core.scores.spectral import eigenpairs, participation_ratio

        return participation_ratio(eigenpairs(as_kernel(inputs["kernel"]))[0])


class StableRankSpec(ScoreSpec):
    """How many eigenvalues carry the kernel: its trace over the largest; at most participation ratio.

    Rudelson and Vershynin, Sampling from Large Matrices, 2007.
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel",)
    direction: ClassVar[Direction] = "context"

    kind: Literal["stable_rank"] = "stable_rank"

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.arrays import as_kernel
        from mr_core.scores.spectral import eigenpairs, stable_rank

        return stable_rank(eigenpairs(as_kernel(inputs["kernel"]))[0])


class LeaveOneOutErrorSpec(ScoreSpec):
    """Squared error of kernel ridge regression on each sample when it is left out, in closed form.

    Allen, The Relationship between Variable Selection and Data Augmentation and a Method for Prediction, 1974.
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel", "labels")
    direction: ClassVar[Direction] = "lower"

    kind: Literal["leave_one_out_error"] = "leave_one_out_error"
    ridge: Ridge = 0.01

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.kernel_ridge import leave_one_out_error, mean_eigenvalue

        kernel = inputs["kernel"]
        return leave_one_out_error(kernel, inputs["labels"], self.ridge * mean_eigenvalue(kernel))


class GcvErrorSpec(ScoreSpec):
    """Generalised cross-validation error of kernel ridge regression: leave-one-out with averaged leverages.

    Golub, Heath and Wahba, 1979; on tangent kernels Wei et al., More Than a Toy, 2022. arXiv:2203.06176
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel", "labels")
    direction: ClassVar[Direction] = "lower"

    kind: Literal["gcv_error"] = "gcv_error"
    ridge: Ridge = 0.01

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.kernel_ridge import gcv_error, mean_eigenvalue

        kernel = inputs["kernel"]
        return gcv_error(kernel, inputs["labels"], self.ridge * mean_eigenvalue(kernel))


class KareSpec(ScoreSpec):
    """Estimate of kernel ridge regression's test error from training data; with an (n, n) kernel that of `gcv_error`.

    Jacot et al., Kernel Alignment Risk Estimator: Risk Prediction from Training Data, 2020. arXiv:2006.09796
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel", "labels")
    direction: ClassVar[Direction] = "lower"

    kind: Literal["kare"] = "kare"
    ridge: Ridge = 0.01

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.kernel_ridge import kare, mean_eigenvalue

        kernel = inputs["kernel"]
        return kare(kernel, inputs["labels"], self.ridge * mean_eigenvalue(kernel) / len(kernel))


class KernelRegressionAccuracySpec(ScoreSpec):
    """Accuracy on one half of the samples of kernel ridge regression on the other, drawn by class.

    As tangent kernels stand in for training in Mohamadi et al., A Fast, Well-Founded Approximation to the Empirical
    Neural Tangent Kernel, 2022. arXiv:2206.12543
    """

    reads: ClassVar[tuple[Read, ...]] = ("kernel", "labels")
    direction: ClassVar[Direction] = "higher"

    kind: Literal["kernel_regression_accuracy"] = "kernel_regression_accuracy"
    ridge: Ridge = 0.01
    seed: Seed = 0

    def compute(self, inputs: Mapping[Read, "Array"]) -> float:
        from mr_core.scores.kernel_ridge import kernel_regression_accuracy, mean_eigenvalue

        kernel = inputs["kernel"]
        ridge = self.ridge * mean_eigenvalue(kernel)
        return kernel_regression_accuracy(kernel, inputs["labels"], ridge, seed=self.seed)
