// An authorization server made with oidc-provider: `oidc_provider.mjs` prints its port.
//
// The client `signed` gets JWTs, and the client `opaque` tokens to be looked up, which the client `server` may do.
// Tokens are for any resource that a client names, and bound to its key if it sends a DPoP proof.
import { createServer } from "node:http";

import { Provider } from "oidc-provider";

const grant = { grant_types: ["client_credentials"], redirect_uris: [], response_types: [], client_secret: "secret" };
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: ["signed", "opaque", "server"].map((client_id) => ({ client_id, ...grant })),
    scopes: ["mcp", "files:read"],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (context, client) => client.clientId === "server" },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (context, resource, client) => ({
          scope: "mcp files:read",
          audience: resource,
          accessTokenTTL: 300,
          accessTokenFormat: client.clientId === "opaque" ? "opaque" : "jwt",
        }),
      },
    },
  });
  server.on("request", provider.callback());
  process.stdout.write(`port ${port}\n`);
});
