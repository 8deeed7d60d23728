"""The server: open the run, and let the strategy gather the clients' trees."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedwaggle import load_examples, open_run, read_config
from my_federated_project import task
from my_federated_project.strategy import CustomFedXgbBagging

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the global model over the rounds that the config asks for."""
    config = read_config(context.run_config)
    test_set = load_examples(task.load_data, "test", context)
    with open_run(
        config, context, grid, package=__package__, test_set=test_set, load_data=task.load_data
    ) as run:

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            model = task.load_booster(arrays["0"].numpy())
            return MetricRecord({**task.test(model, test_set)})

        strategy = CustomFedXgbBagging.of(config, run)
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord([task.as_bytes(task.make_model())]),
            num_rounds=config.num_server_rounds,
            timeout=config.round_timeout,
            evaluate_fn=evaluate,
        )
