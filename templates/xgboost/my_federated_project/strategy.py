"""The strategy: Flower's bagging of trees, and what this project does with metadata."""

from collections.abc import Mapping, Sequence

from flwr.serverapp.strategy import FedXgbBagging

from fedwaggle import ClientUpdate, Waggle
from my_federated_project.task import TrainProcessMetadata, summarize


class CustomFedXgbBagging(Waggle[TrainProcessMetadata], FedXgbBagging):
    """Flower's FedXgbBagging that reads each client's metadata."""

    def on_train_metadata(
        self, server_round: int, updates: Sequence[ClientUpdate[TrainProcessMetadata]]
    ) -> Mapping[str, float]:
        """Read the clients' metadata before their trees are used; log and record numbers."""
        return summarize([update.metadata for update in updates])
