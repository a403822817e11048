variable "endpoint" {
  description = "Where LocalStack listens."
  type        = string
  default     = "http://localhost:4566"
}

variable "name" {
  description = "First part of every name; several environments fit into one LocalStack."
  type        = string
  default     = "carnax"
}

variable "lambda_zip" {
  description = "The package of the functions: a zip with the binary `bootstrap`."
  type        = string
}

variable "architecture" {
  description = "arm64 or x86_64, as the binary in the package has it."
  type        = string
  default     = "x86_64"
}

variable "metadata_addresses" {
  description = "HOST:PORT of the metadata nodes, as the functions reach them."
  type        = list(string)
  default     = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
}

variable "object_store_endpoint" {
  description = "S3 as the functions reach it; empty for the endpoint above."
  type        = string
  default     = ""
}

variable "ingest" {
  description = "Which topic the messages of each queue go to, and where a record's key comes from. The queues are `ordered` (FIFO) and `standard`."
  type        = map(object({ topic = string, key = optional(string) }))
  default = {
    ordered  = { topic = "ordered" }
    standard = { topic = "standard" }
  }
  validation {
    condition     = alltrue([for name in keys(var.ingest) : contains(["ordered", "standard"], name)])
    error_message = "The queues are `ordered` and `standard`."
  }
}

variable "max_receive_count" {
  description = "Receives after which a message goes to the dead-letter queue."
  type        = number
  default     = 100
}

variable "visibility_timeout_seconds" {
  type    = number
  default = 180
}
