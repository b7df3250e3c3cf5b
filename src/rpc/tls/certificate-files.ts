import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { createSecureContext } from "node:tls";

/** The TLS settings of the listeners: paths of PEM files. */
export interface TlsSettings {
  /** The certificate of the service, followed by the intermediate ones. */
  readonly certFile: string;
  /** The private key of the first certificate, without a passphrase. */
  readonly keyFile: string;
  /** The authorities of clients' certificates. Set unless `clientCert` is `none`. */
  readonly clientCaFile: string | undefined;
  /** Whether the listeners request a client certificate, and whether they require it. */
  readonly clientCert: "none" | "optional" | "required";
}

/** The texts of files that were validated. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  readonly ca: string | undefined;
  /** The validity of the service's certificate, in unix milliseconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** The files are unusable. The message names the file, the reason and the setting. */
export class TlsError extends Error {
  override readonly name = "TlsError";
}

/** A larger file is no chain of certificates. The path may name any file, or a device without an end. */
const MAX_FILE_BYTES = 1_048_576;

/** The texts of the files, not validated. */
export interface TlsTexts {
  readonly cert: string;
  readonly key: string;
  readonly ca: string | undefined;
}

/** @throws TlsError if a file cannot be read */
export function readTlsFiles({ certFile, keyFile, clientCaFile }: TlsSettings): TlsTexts {
  return {
    cert: read("certificate", certFile, "HARBORFORGE_TLS_CERT_FILE"),
    key: read("private key", keyFile, "HARBORFORGE_TLS_KEY_FILE"),
    ca:
      clientCaFile === undefined
        ? undefined
        : read("clients' authority", clientCaFile, "HARBORFORGE_TLS_CLIENT_CA_FILE"),
  };
}

/**
 * Validates the texts. Accepts an expired certificate, which the service logs and its clients reject.
 *
 * @throws TlsError if they cannot be used together
 */
export function validateTlsFiles(texts: TlsTexts, { certFile, keyFile, clientCaFile }: TlsSettings): TlsMaterial {
  const certificate = parsed(
    () => new X509Certificate(texts.cert),
    `The TLS certificate ${certFile} is not a certificate in PEM form. Check HARBORFORGE_TLS_CERT_FILE.`,
  );
  const key = parsed(
    () => createPrivateKey(texts.key),
    `The TLS private key ${keyFile} is not a private key in PEM form, or has a passphrase. Check HARBORFORGE_TLS_KEY_FILE.`,
  );
  if (!fits(certificate, key)) {
    throw new TlsError(
      `The TLS private key ${keyFile} does not belong to the certificate ${certFile}. Check HARBORFORGE_TLS_KEY_FILE and HARBORFORGE_TLS_CERT_FILE.`,
    );
  }
  if (texts.ca !== undefined) {
    const { ca } = texts;
    parsed(
      () => new X509Certificate(ca),
      `The TLS clients' authority ${clientCaFile} is not a certificate in PEM form. Check HARBORFORGE_TLS_CLIENT_CA_FILE.`,
    );
  }
  // OpenSSL checks the rest of the chain, and the strength of the key.
  parsed(
    () =>
      createSecureContext({ cert: texts.cert, key: texts.key, ...(texts.ca === undefined ? {} : { ca: texts.ca }) }),
    `The TLS files ${certFile} and ${keyFile} cannot be used together: the key is too weak, or the chain is broken.`,
  );
  return {
    ...texts,
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
  };
}

function fits(certificate: X509Certificate, key: KeyObject): boolean {
  try {
    return certificate.checkPrivateKey(key);
  } catch {
    return false;
  }
}

function parsed<Result>(parse: () => Result, sentence: string): Result {
  try {
    return parse();
  } catch (error) {
    throw new TlsError(sentence, { cause: error });
  }
}

const WHY: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "this user has no permission to read it",
  EISDIR: "it is a folder",
};

function read(what: string, path: string, setting: string): string {
  const refuse = (why: string, cause?: unknown): never => {
    throw new TlsError(`The TLS ${what} ${path} cannot be read: ${why}. Check ${setting}.`, { cause });
  };
  const buffer = Buffer.alloc(MAX_FILE_BYTES + 1);
  let length = 0;
  try {
    const file = openSync(path, "r");
    try {
      for (let got = 1; got > 0 && length < buffer.length; length += got) {
        got = readSync(file, buffer, length, buffer.length - length, null);
      }
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    return refuse(WHY[code] ?? code, error);
  }
  if (length > MAX_FILE_BYTES) return refuse(`it is larger than ${MAX_FILE_BYTES} bytes`);
  return buffer.toString("utf8", 0, length);
}
