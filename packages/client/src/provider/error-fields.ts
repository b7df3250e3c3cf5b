// Plain data, which other languages share: `npm run generate` writes it to packages/client/provider-errors.json.

/**
 * The properties with the response, from the error on: fetch (`status`, `headers`), the SDKs of
 * OpenAI and Anthropic (`error`), axios and got (`response.data`, `response.body`), Google's (`errorDetails`), the AI SDK
 * (`statusCode`, `responseHeaders`, `responseBody`, `lastError`), AWS's (`$metadata`, `$response`), boto3's (`Error`,
 * `ResponseMetadata`), OpenRouter's (`metadata`), MiniMax's (`base_resp`), and `cause` of errors around them. Requests are not
 * among them: they carry texts of the user.
 */
export const INNER_FIELDS: readonly string[] = [
  "error",
  "Error",
  "response",
  "data",
  "body",
  "responseBody",
  "details",
  "detail",
  "errorDetails",
  "metadata",
  "raw",
  "upstreamResponse",
  "originalError",
  "innerError",
  "base_resp",
  "rate_limit_info",
  "ResponseMetadata",
  "lastError",
  "cause",
  "$metadata",
  "$response",
];
/** Fields with an HTTP status: a number, or one as a text. */
export const STATUS_FIELDS: readonly string[] = [
  "status",
  "statusCode",
  "status_code",
  "httpStatusCode",
  "HTTPStatusCode",
  "http_code",
  "http_status",
  "httpStatus",
  "upstreamStatus",
  "upstream_status",
  "raw_status_code",
  "code",
];
/** Fields with a name of the error. */
export const NAME_FIELDS: readonly string[] = [
  "type",
  "code",
  "Code",
  "status",
  "status_code",
  "reason",
  "name",
  "error_type",
  "errorType",
  "error_code",
  "errorCode",
  "__type",
  "@type",
];
/** Fields with a message for people. */
export const MESSAGE_FIELDS: readonly string[] = [
  "message",
  "Message",
  "msg",
  "status_msg",
  "title",
  "error_msg",
  "error_message",
  "errorMessage",
  "error_description",
  "errorDescription",
];
/** Fields with the headers of the response. */
export const HEADER_FIELDS: readonly string[] = ["headers", "responseHeaders", "response_headers", "HTTPHeaders"];
/** Headers with a name of the error, in AWS's form: `ThrottlingException:http://internal.amazon.com/…`. */
export const NAME_HEADERS: readonly string[] = ["x-amzn-errortype"];
/** Before the names of headers that a proxy repeats from the provider: https://docs.litellm.ai/docs/proxy/response_headers */
export const HEADER_PREFIXES: readonly string[] = ["llm_provider-"];
