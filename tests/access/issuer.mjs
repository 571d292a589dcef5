// A real OpenID Connect issuer: whoever signs in as NAME is NAME@example.org, in the group its name begins with.
import { Provider } from "oidc-provider";

const [port, callback] = process.argv.slice(-2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: "noria", client_secret: "issuer-secret", redirect_uris: [callback] }],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["groups"] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (_context, name) => ({
    accountId: name,
    claims: () => ({
      sub: name,
      email: `${name}@example.org`,
      email_verified: !name.startsWith("unverified"),
      groups: [name.split("-")[0]],
    }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
