"""OpenID Connect: the authorization code flow with PKCE, by authlib; the ID token's signature and claims by joserfc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from noria.errors import MissingExtra, NoriaError, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import httpx

Claims = Mapping[str, Any]
_TIMEOUT_SECONDS = 10
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


class Issuer:
    """An issuer, as its discovery document describes it when it is first needed."""

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self._url, self._client_id, self._secret = url.rstrip("/"), client_id, client_secret
        self._found: Mapping[str, Any] | None = None

    def sign_in_url(self, callback: str, state: str, nonce: str, verifier: str) -> str:
        """Where the browser signs in. Raises Unavailable when the issuer cannot be reached."""
        endpoint = str(self._document()["authorization_endpoint"])
        url, _ = self._client(callback).create_authorization_url(
            endpoint, state=state, nonce=nonce, code_verifier=verifier
        )
        return str(url)

    def claims(self, code: str, callback: str, nonce: str, verifier: str) -> Claims:
        """What the issuer says of whoever signed in, once the ID token's signature, audience and nonce are right.

        Raises Unauthenticated when they are not, Unavailable when the issuer cannot be reached.
        """
        from authlib.integrations.base_client import OAuthError
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet, KeySetSerialization

        document = self._document()
        try:
            with self._client(callback) as client:
                answer = client.fetch_token(document["token_endpoint"], code=code, code_verifier=verifier)
            keys = KeySet.import_key_set(cast(KeySetSerialization, self._get(str(document["jwks_uri"]))))
            token = jwt.decode(answer["id_token"], keys, algorithms=_ALGORITHMS)
            registry = jwt.JWTClaimsRegistry(
                leeway=30,
                exp={"essential": True},
                iss={"essential": True, "value": document["issuer"]},
                aud={"essential": True, "value": self._client_id},
                nonce={"essential": True, "value": nonce},
            )
            registry.validate(token.claims)
        except (OAuthError, JoseError, KeyError, ValueError) as error:
            raise Unauthenticated(f"the issuer's answer is not valid: {error}", remedy="Begin again.") from error
        claims = dict(token.claims)
        if "userinfo_endpoint" in document:
            claims |= self._get(str(document["userinfo_endpoint"]), bearer=str(answer["access_token"]))
        if claims.get("sub") != token.claims.get("sub"):
            raise Unauthenticated("the issuer speaks of two users at once", remedy="Begin again.")
        return claims

    def _client(self, callback: str) -> Any:
        try:
            from authlib.integrations.httpx_client import OAuth2Client
        except ImportError:
            raise MissingExtra(
                "sign-in through an issuer needs packages that are not installed", remedy="pip install 'noria[oidc]'"
            ) from None
        return OAuth2Client(
            self._client_id,
            self._secret or None,
            scope="openid email profile",
            redirect_uri=callback,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
        )

    def _document(self) -> Mapping[str, Any]:
        if self._found is None:
            self._found = self._get(f"{self._url}/.well-known/openid-configuration")
        return self._found

    def _get(self, url: str, *, bearer: str = "") -> dict[str, Any]:
        try:
            import httpx
        except ImportError:
            raise MissingExtra(
                "sign-in through an issuer needs packages that are not installed", remedy="pip install 'noria[oidc]'"
            ) from None
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            answer: httpx.Response = httpx.get(url, headers=headers, timeout=_TIMEOUT_SECONDS)
            answer.raise_for_status()
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise _unreachable(url, error) from error
        if not isinstance(document, dict):
            raise _unreachable(url, "no JSON object")
        return document


def _unreachable(url: str, cause: object) -> NoriaError:
    return Unavailable(f"the issuer does not answer at {url}: {cause}", remedy="Check access.oidc.issuer, then retry.")
