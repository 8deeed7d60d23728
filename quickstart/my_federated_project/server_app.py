"""The server: open the run, and let the strategy train the global model."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedwaggle import initial_model, load_examples, open_run, read_config
from my_federated_project import task
from my_federated_project.strategy import CustomFedAdagrad

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the global model over the rounds that the config asks for."""
    config = read_config(context.run_config)
    test_set = load_examples(task.load_data, "test", context)
    with open_run(
        config, context, grid, package=__package__, test_set=test_set, load_data=task.load_data
    ) as run:
        model = initial_model(task.make_model, config.seed)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            model.load_state_dict(arrays.to_torch_state_dict())
            return MetricRecord({**task.test(model, test_set)})

        strategy = CustomFedAdagrad.of(
            config, run, model, eta=config.server_eta, tau=config.server_tau
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=config.num_server_rounds,
            timeout=config.round_timeout,
            evaluate_fn=evaluate,
        )
