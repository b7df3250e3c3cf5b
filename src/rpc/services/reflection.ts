import { type DescFile, type DescMessage, type DescService, toBinary } from "@bufbuild/protobuf";
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

/** Files that no service imports, but whose types clients need: those of error details, and the well-known types. */
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
 * gRPC server reflection for these services, v1 and v1alpha, which differ in nothing but their package. Answers from the
 * generated descriptors; a file comes with all that it imports, so that one request is enough.
 */
export function reflectionServices(services: readonly DescService[]): {
  v1: ServiceImpl<typeof ServerReflection>;
  v1alpha: ServiceImpl<typeof ServerReflectionAlpha>;
} {
  const index = createIndex(services);
  return {
    v1: {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) yield answer(index, request);
      },
    },
    v1alpha: {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) yield answer(index, request);
      },
    },
  };
}

interface Index {
  readonly services: readonly string[];
  readonly fileByName: ReadonlyMap<string, DescFile>;
  /** By the full name of a service, method, message, field, oneof, enum, enum value or extension. */
  readonly fileBySymbol: ReadonlyMap<string, DescFile>;
  /** By the extended message's full name, then by field number. */
  readonly extensions: ReadonlyMap<string, ReadonlyMap<number, DescFile>>;
}

function createIndex(services: readonly DescService[]): Index {
  const fileByName = new Map<string, DescFile>();
  const fileBySymbol = new Map<string, DescFile>();
  const extensions = new Map<string, Map<number, DescFile>>();
  const addFile = (file: DescFile): void => {
    const name = file.proto.name;
    if (fileByName.has(name)) return;
    fileByName.set(name, file);
    file.dependencies.forEach(addFile);
    for (const service of file.services) {
      fileBySymbol.set(service.typeName, file);
      for (const method of service.methods) fileBySymbol.set(`${service.typeName}.${method.name}`, file);
    }
    addTypes(file, file);
  };
  const addTypes = (file: DescFile, scope: DescFile | DescMessage): void => {
    const messages = scope.kind === "file" ? scope.messages : scope.nestedMessages;
    const enums = scope.kind === "file" ? scope.enums : scope.nestedEnums;
    const scopedExtensions = scope.kind === "file" ? scope.extensions : scope.nestedExtensions;
    for (const message of messages) {
      fileBySymbol.set(message.typeName, file);
      for (const member of [...message.fields, ...message.oneofs]) {
        fileBySymbol.set(`${message.typeName}.${member.name}`, file);
      }
      addTypes(file, message);
    }
    for (const { typeName, values } of enums) {
      fileBySymbol.set(typeName, file);
      // Protobuf puts enum values beside their enum, not inside it.
      const outer = typeName.slice(0, typeName.lastIndexOf(".") + 1);
      for (const value of values) fileBySymbol.set(`${outer}${value.name}`, file);
    }
    for (const extension of scopedExtensions) {
      fileBySymbol.set(extension.typeName, file);
      const extendee = extension.extendee.typeName;
      const numbers = extensions.get(extendee) ?? new Map<number, DescFile>();
      extensions.set(extendee, numbers.set(extension.number, file));
    }
  };
  for (const service of services) addFile(service.file);
  ALSO_SERVED.forEach(addFile);
  return { services: services.map((service) => service.typeName).sort(), fileByName, fileBySymbol, extensions };
}

function answer(index: Index, request: ServerReflectionRequest | ServerReflectionRequestAlpha) {
  return {
    validHost: request.host,
    originalRequest: { host: request.host, messageRequest: echo(request) },
    messageResponse: respond(index, request),
  };
}

/** The question as it came, without the type name by which the versions differ. */
function echo({ messageRequest }: ServerReflectionRequest | ServerReflectionRequestAlpha) {
  if (messageRequest.case !== "fileContainingExtension") return messageRequest;
  const { containingType, extensionNumber } = messageRequest.value;
  return { case: messageRequest.case, value: { containingType, extensionNumber } };
}

function respond(index: Index, { messageRequest }: ServerReflectionRequest | ServerReflectionRequestAlpha) {
  switch (messageRequest.case) {
    case "listServices":
      return {
        case: "listServicesResponse" as const,
        value: { service: index.services.map((name) => ({ name })) },
      };
    case "fileByFilename":
      return fileResponse(index.fileByName.get(messageRequest.value), `file ${messageRequest.value}`);
    case "fileContainingSymbol":
      return fileResponse(index.fileBySymbol.get(messageRequest.value), `symbol ${messageRequest.value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = messageRequest.value;
      const file = index.extensions.get(containingType)?.get(extensionNumber);
      return fileResponse(file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType": {
      const baseTypeName = messageRequest.value;
      if (!index.fileBySymbol.has(baseTypeName))
        return errorResponse(Code.NotFound, `there is no type ${baseTypeName}`);
      const extensionNumber = [...(index.extensions.get(baseTypeName)?.keys() ?? [])];
      return { case: "allExtensionNumbersResponse" as const, value: { baseTypeName, extensionNumber } };
    }
    case undefined:
      return errorResponse(Code.InvalidArgument, "message_request must be set");
  }
}

/** What is answered for a file, made once: it is forty times as long as the question. */
const described = new WeakMap<DescFile, Uint8Array[]>();

function fileResponse(file: DescFile | undefined, what: string) {
  if (file === undefined) return errorResponse(Code.NotFound, `there is no ${what}`);
  const known = described.get(file);
  if (known !== undefined) {
    return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto: known } };
  }
  const files = new Set<DescFile>();
  const add = (dependency: DescFile): void => {
    if (files.has(dependency)) return;
    files.add(dependency);
    dependency.dependencies.forEach(add);
  };
  add(file);
  const fileDescriptorProto = [...files].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  described.set(file, fileDescriptorProto);
  return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto } };
}

function errorResponse(errorCode: Code, errorMessage: string) {
  return { case: "errorResponse" as const, value: { errorCode, errorMessage } };
}
