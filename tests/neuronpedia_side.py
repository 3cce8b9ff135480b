"""The other side of tests/interop/test_neuronpedia.py, in an environment with neuronpedia and SAEDashboard.

`neuronpedia_side.py FOLDER`: every upload-*.json is made into the client's own objects and posted by its own code, to a
function that keeps what it would send; every batch-*.json is read by SAEDashboard's own classes and written again.
"""

import json
import sys
from pathlib import Path

from neuronpedia.np_activation import Activation
from neuronpedia.np_feature import Feature, Logit
from neuronpedia.np_source import Source
from neuronpedia.requests.feature_request import FeatureRequest
from sae_dashboard.neuronpedia.neuronpedia_dashboard import (
    NeuronpediaDashboardActivation,
    NeuronpediaDashboardBatch,
    NeuronpediaDashboardFeature,
)


def posted(upload: dict) -> dict:
    sent = []
    FeatureRequest.send_request = lambda self, **options: sent.append((self.endpoint, options))
    FeatureRequest.__init__ = lambda self: setattr(self, "endpoint", "feature")  # the client's asks for a key
    about = {"modelId": upload["modelId"], "source": upload["source"]}
    features = []
    for feature in upload["features"]:
        activations = [Activation(**about, index=feature["index"], **each) for each in feature["activations"]]
        logits = {name: [Logit(**each) for each in feature[there]] for name, there in
                  (("top_logits", "topLogits"), ("bottom_logits", "bottomLogits"))}  # fmt: skip
        known = {"index": feature["index"], "density": feature["density"], "explanations": []}
        features.append(Feature(**about, **known, **logits, activations=activations))
    Source(upload["source"], upload["modelId"], "set").upload_batch(features)
    ((endpoint, options),) = sent
    return {"endpoint": endpoint, **options}


def fields_of(kind: type) -> list[str]:
    return sorted(kind().to_dict())


def main(folder: Path) -> None:
    for path in folder.glob("upload-*.json"):
        path.with_name(f"posted-{path.name}").write_text(json.dumps(posted(json.loads(path.read_text()))))
    for path in folder.glob("batch-*.json"):
        batch = NeuronpediaDashboardBatch(**json.loads(path.read_text()))
        path.with_name(f"read-{path.name}").write_text(json.dumps(batch.to_dict()))
    kinds = (NeuronpediaDashboardBatch, NeuronpediaDashboardFeature, NeuronpediaDashboardActivation)
    (folder / "fields.json").write_text(json.dumps([fields_of(kind) for kind in kinds]))


main(Path(sys.argv[1]))
