import type { Reporter } from "./problems.ts";
import { oneOf, path, type ValuesOf } from "./setting.ts";

const CLIENT_CERT = ["none", "optional", "required"] as const;

/** TLS of both listeners: paths of PEM files. */
export interface TlsChoice {
  readonly certFile: string;
  readonly keyFile: string;
  /** Set unless `clientCert` is `none`. */
  readonly clientCaFile: string | undefined;
  readonly clientCert: (typeof CLIENT_CERT)[number];
}

function pemFile(description: string) {
  return path({ placeholder: "<file>", description }, "a PEM file");
}

export const TLS_SETTINGS = {
  tlsCertFile: pemFile("the certificate of both listeners, with its intermediate certificates; it turns TLS on"),
  tlsKeyFile: pemFile("the private key of the certificate, without a passphrase"),
  tlsClientCaFile: pemFile("the authorities that sign the certificates of clients"),
  tlsClientCert: oneOf(
    {
      placeholder: "<when>",
      description: "whether clients are asked for a certificate, and whether a client without one may connect",
    },
    "none",
    CLIENT_CERT,
  ),
};

/** Undefined: the listeners serve cleartext. */
export function tlsOf(
  values: ValuesOf<typeof TLS_SETTINGS>,
  { nameOf, report }: Reporter<keyof typeof TLS_SETTINGS>,
): TlsChoice | undefined {
  const {
    tlsCertFile: certFile,
    tlsKeyFile: keyFile,
    tlsClientCaFile: clientCaFile,
    tlsClientCert: clientCert,
  } = values;
  const asks = clientCert !== "none";
  const [cert, key, ca, client] = [
    nameOf("tlsCertFile"),
    nameOf("tlsKeyFile"),
    nameOf("tlsClientCaFile"),
    nameOf("tlsClientCert"),
  ];
  if (certFile === undefined && (keyFile !== undefined || asks || clientCaFile !== undefined)) {
    report("tlsCertFile", `${cert} is not set, but other settings of TLS are: set it and ${key}, too.`);
  }
  if (keyFile === undefined && certFile !== undefined) {
    report("tlsKeyFile", `${key} is not set, but ${cert} is: set it, too.`);
  }
  if (asks && clientCaFile === undefined) {
    report("tlsClientCaFile", `${ca} is not set, but ${client} is ${clientCert}: set it, too.`);
  }
  // An authority without a request for certificates is more likely a mistake than an intention.
  if (!asks && clientCaFile !== undefined) {
    report("tlsClientCert", `${client} is none, but ${ca} is set: set it to optional or required.`);
  }
  if (certFile === undefined || keyFile === undefined) return undefined;
  return Object.freeze({ certFile, keyFile, clientCaFile, clientCert });
}
