"""The strategy: Flower's FedAdagrad, and what this project does with its clients' metadata."""

from collections.abc import Mapping, Sequence

from flwr.serverapp.strategy import FedAdagrad

from fedwaggle import ClientUpdate, Waggle
from my_federated_project.task import TrainProcessMetadata, summarize


class CustomFedAdagrad(Waggle[TrainProcessMetadata], FedAdagrad):
    """FedAdagrad (Reddi et al., arXiv:2003.00295) that reads each client's metadata.

    ``Waggle`` decodes the metadata, sets the learning rate of each round, records the run and
    keeps the best model. The step itself is Flower's.
    """

    def on_train_metadata(
        self, server_round: int, updates: Sequence[ClientUpdate[TrainProcessMetadata]]
    ) -> Mapping[str, float]:
        """Read the clients' metadata before their weights are used; log and record numbers."""
        return summarize([update.metadata for update in updates])
