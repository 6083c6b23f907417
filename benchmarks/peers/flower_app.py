"""The client of Flower's simulation, in a module of its own so that Ray's workers import it. Its scenario is in the environment."""

import functools
import json
import os

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import workload

SCENARIO = "TRIBUTARY_PEERS_TRAINING"

app = ClientApp()


@functools.cache
def prepared():
    """(scenario, model) of this worker, made once: friendlier than Flower's examples, which make the model for every message."""
    training = workload.Training(**json.loads(os.environ[SCENARIO]))
    workload.warm_up(training)
    return training, workload.make_model(training.model)


@app.query()
def warm_up(message, context):
    prepared()
    return Message(RecordDict(), reply_to=message)


@app.train()
def train(message, context):
    training, model = prepared()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    workload.train_client(model, training, context.node_config["partition-id"])
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": training.examples})}),
                   reply_to=message)
