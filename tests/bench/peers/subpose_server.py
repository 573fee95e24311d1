"""This service around the simulated device."""

from __future__ import annotations

import logging
import sys

from models.detectors import load_detector
from service.app import create_app
from service.catalog import Catalog, ServedDetector
from service.server import Server
from service.settings import Settings
from tests.bench.peers.device import simulated_model


def load(settings: Settings) -> Catalog:
    model = simulated_model()
    whole = ServedDetector("whole", load_detector("whole"), None)
    return Catalog({model.name: model}, {whole.name: whole}, model.name, whole.name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    settings = Settings()
    server = Server(create_app(settings, load), settings)
    server.run()
    sys.exit(server.status)
