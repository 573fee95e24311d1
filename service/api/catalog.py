"""GET /models: what can be asked for."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from models.pose import PoseModel
from service.api.dependencies import AppState, no_query
from service.api.errors import problem_responses
from service.api.schemas import CatalogBody, DetectorCard, HeadCard, ImageSize, ModelCard
from service.catalog import Catalog, ServedDetector
from service.problems import InvalidParameter, Starting, UnknownHost, UnknownModel

router = APIRouter(tags=["models"], dependencies=[Depends(no_query)])


@router.head("/models", include_in_schema=False)
@router.get("/models", responses=problem_responses(UnknownHost, InvalidParameter, Starting))
async def get_models(state: AppState) -> CatalogBody:
    """Every model and every detector."""
    catalog = state.loaded.catalog
    return CatalogBody(
        models=[_model_card(catalog, model) for model in catalog.models.values()],
        detectors=[_detector_card(catalog, detector) for detector in catalog.detectors.values()],
    )


@router.head("/models/{name}", include_in_schema=False)
@router.get(
    "/models/{name}",
    responses=problem_responses(UnknownHost, InvalidParameter, UnknownModel, Starting),
)
async def get_model(name: str, state: AppState) -> ModelCard | DetectorCard:
    """One model or detector."""
    catalog = state.loaded.catalog
    if name in catalog.detectors:
        return _detector_card(catalog, catalog.detectors[name])
    if name not in catalog.models:
        known = ", ".join((*catalog.models, *catalog.detectors))
        raise UnknownModel(f"{name[:64]!r} is not one of {known}")
    return _model_card(catalog, catalog.models[name])


def _model_card(catalog: Catalog, model: PoseModel) -> ModelCard:
    manifest = model.manifest
    nerpe = manifest.heads.nerpe
    return ModelCard(
        name=model.name,
        default=model.name == catalog.default_model,
        heads=[
            HeadCard(
                name=head,
                decodes=list(model.decodes[head]),
                resolution=nerpe.resolution if nerpe and head == "nerpe" else None,
                sigma=model.calibration(head) is not None,
            )
            for head in model.heads
        ],
        default_head=model.default_head,
        keypoint_set=model.keypoints.name,
        keypoints=list(model.keypoints.names),
        skeleton=list(model.keypoints.skeleton),
        input=ImageSize(width=manifest.input.width, height=manifest.input.height),
        engine=model.engine.name,
        device=model.engine.device,
        weights=model.bundle.digest,
        licence=manifest.licence,
        accuracy=manifest.accuracy,
    )


def _detector_card(catalog: Catalog, served: ServedDetector) -> DetectorCard:
    manifest = served.bundle.manifest if served.bundle else None
    return DetectorCard(
        name=served.name,
        default=served.name == catalog.default_detector,
        min_box_score=served.detector.min_box_score,
        device=served.detector.device,
        input=ImageSize(width=manifest.input.width, height=manifest.input.height)
        if manifest
        else None,
        weights=served.bundle.digest if served.bundle else None,
        licence=manifest.licence if manifest else None,
        accuracy=manifest.accuracy if manifest else None,
    )
