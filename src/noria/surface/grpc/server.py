"""The gRPC server of a gateway: it answers from the same data plane as HTTP does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from noria import __version__
from noria.errors import InvalidInput, NoriaError, NotFound, Unauthenticated, Unavailable
from noria.serving import DataPlane
from noria.serving.bare import bare
from noria.serving.live import Arm, Live
from noria.surface.errors import outside
from noria.surface.grpc import open_inference_pb2 as pb
from noria.surface.grpc.messages import read_call, write_result
from noria.surface.http.gateway_requests import key_of
from noria.surface.http.tls import Renewal, Tls
from noria.surface.tensors import infer, metadata

_log = structlog.get_logger()
SERVICE = "inference.GRPCInferenceService"
_TELL_SECONDS = 0.2
_IDLE_SECONDS = 1.0
"""So long may a stream ask once more when the end begins."""
_EXTENSIONS = ("model_repository(index)",)


class RpcServer:
    """A server that runs, whose health service says whether something is served, as ``ServerReady`` does."""

    def __init__(self, inference: _Inference, server: grpc.aio.Server, checks: health.aio.HealthServicer) -> None:
        self._inference, self._server, self._checks = inference, server, checks
        self._telling = asyncio.create_task(self._tell())

    async def stop(self, grace_seconds: float) -> None:
        """End; who watches the health is told first, requests have so long. Streams that ask nothing hold up nobody."""
        self._telling.cancel()
        await self._checks.enter_graceful_shutdown()
        ending, idle_since = asyncio.create_task(self._server.stop(grace_seconds)), time.monotonic()
        while not ending.done() and time.monotonic() - idle_since < _IDLE_SECONDS:
            await asyncio.sleep(0.02)
            if self._inference.answering:
                idle_since = time.monotonic()
        await self._server.stop(None)
        await ending

    async def _tell(self) -> None:
        while True:
            await _set_health(self._checks, self._inference.plane)
            await asyncio.sleep(_TELL_SECONDS)


async def start(plane: DataPlane, address: str, largest_bytes: int, tls: Tls | None = None) -> RpcServer:
    """Serve on ``address`` (host:port) in the running event loop. Raises Unavailable when it is taken."""
    options = [
        ("grpc.max_receive_message_length", largest_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 1),
    ]
    server = grpc.aio.server(options=options)
    inference = _Inference(plane)
    inference.add_to(server)
    checks = health.aio.HealthServicer()
    await _set_health(checks, plane)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_descriptions())
    try:
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, _credentials(tls))
    except RuntimeError as error:
        raise Unavailable(
            f"cannot serve gRPC on {address}: {error}", remedy="Choose another with --grpc-port."
        ) from error
    await server.start()
    return RpcServer(inference, server, checks)


async def _set_health(checks: health.aio.HealthServicer, plane: DataPlane) -> None:
    said = health_pb2.HealthCheckResponse
    for service in ("", SERVICE):
        await checks.set(service, said.SERVING if _is_ready(plane) else said.NOT_SERVING)


def _is_ready(plane: DataPlane) -> bool:
    try:
        return bool(plane.deployments)
    except Unavailable:
        return False


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """The certificate, looked at anew at every handshake."""
    renewal = Renewal(tls)

    def shown() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(tls.key.read_bytes(), tls.certificate.read_bytes())])

    return grpc.dynamic_ssl_server_credentials(shown(), lambda: shown() if renewal.is_due() else None)


def _descriptions() -> DescriptorPool:
    """Our messages and those of the health service, for reflection: they lie in pools of their own."""
    pool = DescriptorPool()
    for described in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(described.serialized_pb)
    return pool


Method = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class _Inference:
    """The methods of GRPCInferenceService; ``answering`` says how many predictions are under way."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self.answering = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the methods; the generated stubs for that say no more than this."""
        unary: Mapping[str, tuple[Method, Any, Any]] = {
            "ServerLive": (self._server_live, pb.ServerLiveRequest, pb.ServerLiveResponse),
            "ServerReady": (self._server_ready, pb.ServerReadyRequest, pb.ServerReadyResponse),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest, pb.ModelReadyResponse),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest, pb.ServerMetadataResponse),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest, pb.ModelMetadataResponse),
            "ModelInfer": (self._infer, pb.ModelInferRequest, pb.ModelInferResponse),
            "RepositoryIndex": (self._index, pb.RepositoryIndexRequest, pb.RepositoryIndexResponse),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._told(method), request_deserializer=_reader(asked), response_serializer=given.SerializeToString
            )
            for name, (method, asked, given) in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=_reader(pb.ModelInferRequest),
            response_serializer=pb.ModelStreamInferResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _server_live(self, _request: Any, _context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, _request: Any, _context: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=_is_ready(self.plane))

    async def _model_ready(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        try:
            live = self._admitted(request.name, context)
            return pb.ModelReadyResponse(ready=_arm(live, request.version) is not None)
        except (NotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)

    async def _server_metadata(self, _request: Any, _context: Any) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="noria", version=__version__, extensions=_EXTENSIONS)

    async def _model_metadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        live = self._admitted(request.name, context)
        found: dict[str, Any] = metadata(live, _arm(live, request.version))
        response = pb.ModelMetadataResponse(name=request.name, versions=found["versions"], platform=found["platform"])
        response.properties["columns"] = ",".join(found["parameters"]["columns"])
        for part, tensors in ((response.inputs, found["inputs"]), (response.outputs, found["outputs"])):
            for tensor in tensors:
                part.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        return response

    async def _infer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        self.answering += 1
        try:
            return await self._answer(request, context)
        finally:
            self.answering -= 1

    async def _answer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        live = self._admitted(request.model_name, context)
        arm = _arm(live, request.model_version)
        version = request.model_version or None
        found = await infer(self.plane, live, arm, version, read_call(request), context.time_remaining())
        return write_result(replace(found, model_name=request.model_name))

    async def _index(self, _request: Any, _context: Any) -> pb.RepositoryIndexResponse:
        response = pb.RepositoryIndexResponse()
        for live in self.plane.deployments:
            for arm in live.arms:
                response.models.add(name=live.table.deployment, version=arm.version, state="READY")
        return response

    async def _stream(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answer a stream's requests in order; one that fails is answered with its error, and the stream goes on."""
        async for request in requests:
            try:
                answer = pb.ModelStreamInferResponse(infer_response=await self._infer(_readable(request), context))
            except Exception as raised:
                answer = pb.ModelStreamInferResponse(error_message=str(self._refusal(raised)))
                answer.infer_response.id = getattr(request, "id", "")
            yield answer

    def _told(self, method: Method) -> Method:
        """The method with our errors as gRPC has them."""

        async def told(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await method(_readable(request), context)
            except Exception as raised:
                error = self._refusal(raised)
            del request  # gRPC keeps how a call was aborted, with this frame, in a cycle: see ``bare``
            await _abort(context, error)
            return None

        return told

    def _refusal(self, raised: Exception) -> NoriaError:
        """The error as the client is told it; it is counted."""
        error = _clear(raised)
        self.plane.metrics.count_error(error.code)
        bare(raised)
        return error

    def _admitted(self, name: str, context: Any) -> Live:
        """The deployment of that name. Raises Unauthenticated when it wants a key that the call did not bring."""
        live = self.plane.find(name)
        if live.table.key_hashes:
            sent = {key: str(value) for key, value in context.invocation_metadata() or ()}
            if not live.admits(key_of(sent.get("x-api-key", ""), sent.get("authorization", ""))):
                raise Unauthenticated(
                    f"deployment {live.table.deployment!r} wants a key", remedy="Send it as metadata x-api-key."
                )
        return live


def _arm(live: Live, version: str) -> Arm:
    return live.arm(version) if version else live.champion


def _reader(kind: Any) -> Callable[[bytes], Any]:
    """Reads a message; in the place of one that is malformed, which gRPC answers with UNKNOWN, stands our error."""

    def read(content: bytes) -> Any:
        try:
            return kind.FromString(content)
        except DecodeError as error:
            return InvalidInput(f"the message cannot be read: {error}", remedy="Send what the service's proto says.")

    return read


def _readable(request: Any) -> Any:
    """The message that came. Raises InvalidInput where it is malformed."""
    if isinstance(request, NoriaError):
        raise request
    return request


def _clear(error: Exception) -> NoriaError:
    """The error as the client is told it; one that is not meant for clients goes to the log."""
    if isinstance(error, NoriaError):
        return error
    _log.error("rpc_failed", exc_info=error)
    return NoriaError("the gateway failed at this request", remedy="Its log says why.")


async def _abort(context: grpc.aio.ServicerContext, error: NoriaError) -> None:
    retry = getattr(error, "retry_after", None)
    trailing = () if retry is None else (("retry-after", str(retry)),)
    await context.abort(getattr(grpc.StatusCode, outside(error).grpc), str(error), trailing)
