import { createRegistry, type DescFile, type DescService, type Registry, toBinary } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
} from "@bufbuild/protobuf/wkt";
import { Code, type ServiceImpl } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "../../../gen/google/rpc/error_details_pb.ts";
import { file_google_rpc_status } from "../../../gen/google/rpc/status_pb.ts";
import type { ServerReflection, ServerReflectionRequest } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import type {
  ServerReflection as ServerReflectionAlpha,
  ServerReflectionRequest as ServerReflectionRequestAlpha,
} from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";

/** Files that no service imports, but whose types clients need: error details, and the well-known types. */
const ALSO_SERVED: readonly DescFile[] = [
  file_google_rpc_error_details,
  file_google_rpc_status,
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
];

/**
 * gRPC server reflection for these services, v1 and v1alpha, which differ in their package only. It responds with the generated
 * descriptors. A file comes with all files that it imports, so that one request is enough.
 */
export function reflectionServices(services: readonly DescService[]): {
  v1: ServiceImpl<typeof ServerReflection>;
  v1alpha: ServiceImpl<typeof ServerReflectionAlpha>;
} {
  const index = createIndex(services);
  return {
    v1: {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) yield responseTo(index, request);
      },
    },
    v1alpha: {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) yield responseTo(index, request);
      },
    },
  };
}

interface Index {
  /** Sorted. */
  readonly services: readonly string[];
  readonly files: ReadonlyMap<string, DescFile>;
  readonly registry: Registry;
}

function createIndex(services: readonly DescService[]): Index {
  const files = withImports([...services.map(({ file }) => file), ...ALSO_SERVED]);
  return {
    services: services.map((service) => service.typeName).sort(),
    files: new Map([...files].map((file) => [file.proto.name, file])),
    registry: createRegistry(...files),
  };
}

/** These files and all that they import, a file before its imports. */
function withImports(files: readonly DescFile[], found: Set<DescFile> = new Set()): Set<DescFile> {
  for (const file of files) {
    if (!found.has(file)) withImports(file.dependencies, found.add(file));
  }
  return found;
}

/** The file that defines a service, method, message, field, oneof, enum, enum value or extension, by its full name. */
function fileOf(registry: Registry, symbol: string): DescFile | undefined {
  const type = registry.get(symbol);
  if (type !== undefined) return type.file;
  const [scope, name] = splitName(symbol);
  const isNamed = (member: { readonly name: string }): boolean => member.name === name;
  const parent = registry.get(scope);
  if (parent?.kind === "message" && [...parent.fields, ...parent.oneofs].some(isNamed)) return parent.file;
  if (parent?.kind === "service" && parent.methods.some(isNamed)) return parent.file;
  for (const type of registry) {
    // Protobuf puts enum values beside their enum, not inside it.
    if (type.kind === "enum" && splitName(type.typeName)[0] === scope && type.values.some(isNamed)) return type.file;
  }
  return undefined;
}

function splitName(fullName: string): [scope: string, name: string] {
  const dot = fullName.lastIndexOf(".");
  return [fullName.slice(0, Math.max(0, dot)), fullName.slice(dot + 1)];
}

function responseTo(index: Index, request: ServerReflectionRequest | ServerReflectionRequestAlpha) {
  return {
    validHost: request.host,
    originalRequest: { host: request.host, messageRequest: echo(request) },
    messageResponse: messageResponseTo(index, request),
  };
}

/** The request as it came, without the type name, in which the versions differ. */
function echo({ messageRequest }: ServerReflectionRequest | ServerReflectionRequestAlpha) {
  if (messageRequest.case !== "fileContainingExtension") return messageRequest;
  const { containingType, extensionNumber } = messageRequest.value;
  return { case: messageRequest.case, value: { containingType, extensionNumber } };
}

function messageResponseTo(index: Index, { messageRequest }: ServerReflectionRequest | ServerReflectionRequestAlpha) {
  switch (messageRequest.case) {
    case "listServices":
      return {
        case: "listServicesResponse" as const,
        value: { service: index.services.map((name) => ({ name })) },
      };
    case "fileByFilename":
      return fileResponse(index.files.get(messageRequest.value), `file ${messageRequest.value}`);
    case "fileContainingSymbol":
      return fileResponse(fileOf(index.registry, messageRequest.value), `symbol ${messageRequest.value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = messageRequest.value;
      const extendee = index.registry.getMessage(containingType);
      const extension = extendee && index.registry.getExtensionFor(extendee, extensionNumber);
      return fileResponse(extension?.file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType": {
      const baseTypeName = messageRequest.value;
      if (fileOf(index.registry, baseTypeName) === undefined) {
        return errorResponse(Code.NotFound, `there is no type ${baseTypeName}`);
      }
      const extensionNumber = [...index.registry].flatMap((type) =>
        type.kind === "extension" && type.extendee.typeName === baseTypeName ? [type.number] : [],
      );
      return { case: "allExtensionNumbersResponse" as const, value: { baseTypeName, extensionNumber } };
    }
    case undefined:
      return errorResponse(Code.InvalidArgument, "message_request must be set");
  }
}

/** The encoded descriptors of a file and its imports, made once: they are forty times as long as the request. */
const described = new WeakMap<DescFile, Uint8Array[]>();

function fileResponse(file: DescFile | undefined, what: string) {
  if (file === undefined) return errorResponse(Code.NotFound, `there is no ${what}`);
  let fileDescriptorProto = described.get(file);
  if (fileDescriptorProto === undefined) {
    fileDescriptorProto = [...withImports([file])].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
    described.set(file, fileDescriptorProto);
  }
  return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto } };
}

function errorResponse(errorCode: Code, errorMessage: string) {
  return { case: "errorResponse" as const, value: { errorCode, errorMessage } };
}
