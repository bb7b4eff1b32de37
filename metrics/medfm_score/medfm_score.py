"""The score of MedFMC as a metric of `evaluate`: accuracy or mAP, AUC and their mean, exact, with one sort per class."""

# evaluate finds the modules to copy along with the metric by these lines: each of their imports must be at the start of a line.
import datasets
import evaluate
import numpy as np

from medfmc_hf.errors import MedfmcError
from medfmc_hf.scoring import as_array, as_targets, score
from medfmc_hf.subsets import CITATION, SUBSETS

_DESCRIPTION = """\
The score of MedFMC and of the MedFM challenge (NeurIPS 2023): accuracy and AUC for single-label tasks, mAP and AUC for multi-label
tasks, and the mean of the two. Exact, including ties, and fast: one sort per class.
"""

_INPUTS = """
Load it without a configuration to infer the task from the references, or with the key of a subset (chest, colon, endo, neojaundice, retino)
to fix the task, the number of classes and their names.

Args:
    predictions: scores, n rows of one finite number per class, higher for more likely. Logits and sigmoids give the same score in
        multi-label tasks. In single-label tasks pass probabilities (softmax): logits have the same accuracy, but may differ in AUC.
        A single class index per row, as `evaluate.evaluator` passes it, gives only the accuracy: it is no ranking.
    references: single-label: n class indices. Multi-label: n rows of 0 and 1, or n lists of positive class indices.
    undefined (str): `skip` (default) leaves classes without positives or without negatives out of the means; `official` repeats the
        AUC of the previous class and counts an AP of 0, as the challenge's code does.
    ties (str): `sklearn` (default) treats equal scores as one threshold in the AP; `official` takes them in the order of the rows.

Returns:
    `accuracy` or `map`, `auc`, `score` (their mean), all fractions; `rows`; `undefined`, the classes without positives or without
    negatives; `per_class`: for each class its `auc`, its `recall` or `ap`, and its number of `positives` and `negatives`.

Examples:
    >>> metric = evaluate.load("medfm_score", "colon")
    >>> metric.compute(predictions=[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], references=[0, 1, 1])["auc"]
    1.0
    >>> metric = evaluate.load("medfm_score", "endo")
    >>> result = metric.compute(predictions=[[0.9, 0.1, 0.2, 0.3], [0.2, 0.8, 0.1, 0.1]], references=[[0], [1, 2]])
    >>> result["undefined"]
    ['tumor']
"""


class MedfmScore(evaluate.Metric):
    """See the description and the inputs above."""

    def _info(self):
        if self.config_name != "default" and self.config_name not in SUBSETS:
            raise MedfmcError(f"medfm_score has no configuration {self.config_name!r}; it has default, {', '.join(SUBSETS)}.")
        # Labels are float64, too: an integer column would silently truncate 0.7 to 0, while `score` raises an error.
        number, numbers = datasets.Value("float64"), datasets.Sequence(datasets.Value("float64"))
        single = datasets.Features({"predictions": numbers, "references": number})
        multi = datasets.Features({"predictions": numbers, "references": numbers})
        hard = datasets.Features({"predictions": number, "references": number})
        subset = SUBSETS.get(self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=CITATION,
            inputs_description=_INPUTS,
            features=[single, multi, hard] if subset is None else [multi] if subset.multilabel else [single, hard],
            reference_urls=["https://doi.org/10.1038/s41597-023-02460-0", "https://github.com/openmedlab/MedFM"],
        )

    def compute(self, *, predictions=None, references=None, **kwargs):
        """Score the given rows, or those added before.

        Given rows bypass Arrow, which costs many times the metric itself.
        """
        at_once = predictions is not None and references is not None and self.writer is None and self.num_process == 1
        if at_once:
            return self._compute(predictions=predictions, references=references, **kwargs)
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions, references, undefined="skip", ties="sklearn"):
        subset = SUBSETS.get(self.config_name)
        options = {"task": subset and subset.task, "classes": subset and subset.classes}
        scores = as_array(predictions)
        if scores.ndim == 1 and scores.dtype.kind in "iuf" and (scores == np.floor(scores)).all():
            scores, references = self._one_hot(scores.astype(np.int64), references, subset)
            return {"accuracy": score(references, scores, **options | {"task": "single-label"})["accuracy"]}
        return score(references, predictions, undefined=undefined, ties=ties, **options)

    def _one_hot(self, indices, references, subset):
        """Class indices as one-hot scores, and the validated labels."""
        labels = as_targets(
            references, (len(indices), len(subset.classes) if subset else 1 << 31), subset.task if subset else "single-label"
        )
        width = len(subset.classes) if subset else max(2, 1 + int(max(indices.max(initial=0), labels.max(initial=0))))
        if len(indices) and not 0 <= indices.min() <= indices.max() < width:
            raise MedfmcError(f"predictions have class indices {indices.min()} to {indices.max()}; expected 0 to {width - 1}.")
        return np.eye(width)[indices], labels
