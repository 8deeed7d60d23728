"""The server: read the config, open the run, and let the strategy train the global model."""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedwaggle.config import RunConfig, read_config
from fedwaggle.data import Examples, fingerprint, load_split
from fedwaggle.runs import Request, Run, open_run, outputs_root
from fedwaggle.runs.request import code_hash, installed_versions, source_hashes
from fedwaggle.schedules import schedule_of
from fedwaggle.seeds import derive_seed, seed_everything
from fedwaggle.strategy import RoundRules, engine_name, trainable_names
from fedwaggle.trackers import open_trackers
from my_federated_project import task
from my_federated_project.strategy import CustomFedAdagrad, policies_of

logger = logging.getLogger("flwr.my_federated_project")  # below Flower's, so that its log shows it

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the global model over the rounds that the config asks for."""
    config = read_config(context.run_config)
    test_set = load_split(config.dataset, "test", data_dir=config.data_dir or None)
    with open_folder(config, context, test_set, engine_name(grid)) as run:
        logger.info("run folder: %s", run.path)
        run.attach(open_trackers(config.trackers, run.path, project=config.wandb_project))
        model = initial_model(config, test_set)
        strategy = make_strategy(config, run, model)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            model.load_state_dict(arrays.to_torch_state_dict())
            loss, accuracy = task.test(model, test_set)
            return MetricRecord({"loss": loss, "accuracy": accuracy})

        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=config.num_server_rounds,
            timeout=config.round_timeout,
            evaluate_fn=evaluate,
        )
    last_round, last = max(result.evaluate_metrics_serverapp.items())
    logger.info("accuracy after round %d: %.2f %%", last_round, 100 * last["accuracy"])
    for what, file in (("best model", "best.pth"), ("report", "report.html")):
        if (run.path / file).exists():
            logger.info("%s: %s", what, run.path / file)


def open_folder(config: RunConfig, context: Context, test_set: Examples, engine: str) -> Run:
    """Open the folder of a new run, or of the one that the config says to go on with."""
    package = Path(__file__).parent
    request = Request(
        config=dict(context.run_config),
        seed=config.seed,
        engine=engine,
        versions=installed_versions(),
        code=code_hash(package),
        sources=source_hashes(package),
        dataset=fingerprint(test_set),
    )
    return open_run(
        outputs_root(config.outputs),
        name=config.run_name,
        request=request,
        resume=config.resume,
        fork=config.fork,
    )


def initial_model(config: RunConfig, examples: Examples) -> task.Net:
    """Make the model of round 0; its weights are drawn by the seed."""
    seed_everything(derive_seed(config.seed, "initial weights"))
    return task.Net(examples.image_shape, examples.num_classes)


def make_strategy(config: RunConfig, run: Run, model: task.Net) -> CustomFedAdagrad:
    """Make the strategy that the config describes."""
    return CustomFedAdagrad(
        metadata=task.TrainProcessMetadata,
        learning_rate=schedule_of(config),
        run=run,
        seed=config.seed,
        trainable=trainable_names(model),
        rules=RoundRules.of(config),
        policies=policies_of(config),
        best_metric=config.best_metric,
        best_mode=config.best_mode,
        codec=config.metadata_codec,
        trust_pickle=config.trust_pickle,
        max_metadata_bytes=config.max_metadata_bytes,
        fraction_train=config.fraction_train,
        fraction_evaluate=config.fraction_evaluate,
        min_train_nodes=config.min_train_nodes,
        min_evaluate_nodes=config.min_evaluate_nodes,
        min_available_nodes=config.min_available_nodes,
        eta=config.server_eta,
        tau=config.server_tau,
    )
