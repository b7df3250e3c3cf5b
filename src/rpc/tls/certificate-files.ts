import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { createSecureContext } from "node:tls";

/** What a listener shows and asks for: paths of PEM files. */
export interface TlsSettings {
  /** The certificate of the service and those between it and its authority, in this order. */
  readonly certFile: string;
  /** The private key of the first certificate, without a passphrase. */
  readonly keyFile: string;
  /** The authorities that sign clients' certificates. Set unless `clientCert` is `none`. */
  readonly clientCaFile: string | undefined;
  /** Whether clients are asked for a certificate, and whether one that has none may come in. */
  readonly clientCert: "none" | "optional" | "required";
}

/** What was read from the files, and found to fit together. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  readonly ca: string | undefined;
  /** From and until when the service's certificate counts, in unix milliseconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** TLS cannot be had with these files: a sentence that says which one, why, and which setting names it. */
export class TlsError extends Error {
  override readonly name = "TlsError";
}

/** No chain of certificates is longer: what is may be any file, or a device that never ends. */
const MAX_FILE_BYTES = 1_048_576;

/** The texts of the files, before anybody looks into them. */
export interface TlsTexts {
  readonly cert: string;
  readonly key: string;
  readonly ca: string | undefined;
}

/** @throws TlsError where one cannot be read */
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
 * Judges the texts. An expired certificate is none of its business: its holder is told, and whoever connects.
 *
 * @throws TlsError where they make no TLS
 */
export function judgeTlsFiles(texts: TlsTexts, { certFile, keyFile, clientCaFile }: TlsSettings): TlsMaterial {
  const certificate = parsed(
    () => new X509Certificate(texts.cert),
    `The TLS certificate ${certFile} is no certificate in PEM form. Check HARBORFORGE_TLS_CERT_FILE.`,
  );
  const key = parsed(
    () => createPrivateKey(texts.key),
    `The TLS private key ${keyFile} is no private key in PEM form, or has a passphrase. Check HARBORFORGE_TLS_KEY_FILE.`,
  );
  if (!fits(certificate, key)) {
    throw new TlsError(
      `The TLS private key ${keyFile} is not the one of the certificate ${certFile}. Check HARBORFORGE_TLS_KEY_FILE and HARBORFORGE_TLS_CERT_FILE.`,
    );
  }
  if (texts.ca !== undefined) {
    const { ca } = texts;
    parsed(
      () => new X509Certificate(ca),
      `The TLS clients' authority ${clientCaFile} is no certificate in PEM form. Check HARBORFORGE_TLS_CLIENT_CA_FILE.`,
    );
  }
  // What OpenSSL alone judges: the rest of the chain, and whether the key is strong enough.
  parsed(
    () =>
      createSecureContext({ cert: texts.cert, key: texts.key, ...(texts.ca === undefined ? {} : { ca: texts.ca }) }),
    `The TLS files ${certFile} and ${keyFile} cannot be used together: a key that is too weak, or a broken chain.`,
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
  EACCES: "this user may not read it",
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
