variable "name" {
  description = "First part of every name."
  type        = string
}

variable "zip" {
  description = "The package: a zip with the binary `bootstrap`."
  type        = string
}

variable "architecture" {
  description = "arm64 or x86_64, as the binary in the package has it."
  type        = string
  default     = "arm64"
  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "arm64 or x86_64."
  }
}

variable "memory_mib" {
  description = "Memory of a function; its share of a processor grows with it."
  type        = number
  default     = 512
}

variable "timeout_seconds" {
  description = "Time limit of one event. Long polls end before it."
  type        = number
  default     = 30
}

variable "concurrency_max" {
  description = "Concurrent events of each function; -1 sets no bound but the account's."
  type        = object({ http = optional(number, -1), sqs-ingest = optional(number, -1), maintenance = optional(number, -1) })
  default     = {}
}

variable "metadata_addresses" {
  description = "HOST:PORT of the metadata nodes."
  type        = list(string)
}

variable "object_store" {
  description = "s3://bucket/prefix of the cluster."
  type        = string
}

variable "object_store_endpoint" {
  description = "URL of a store that is not Amazon's; empty for Amazon's."
  type        = string
  default     = ""
}

variable "s3_path_style" {
  type    = bool
  default = false
}

variable "bucket_arn" {
  type = string
}

variable "log_objects_arn" {
  description = "The objects that frontends read and write."
  type        = string
}

variable "url_authorization" {
  description = "AWS_IAM: callers sign their requests. NONE opens the log to everybody."
  type        = string
  default     = "AWS_IAM"
  validation {
    condition     = contains(["AWS_IAM", "NONE"], var.url_authorization)
    error_message = "AWS_IAM or NONE."
  }
}

variable "url_invoke_mode" {
  description = "BUFFERED or RESPONSE_STREAM."
  type        = string
  default     = "BUFFERED"
}

variable "ingest" {
  description = <<-TEXT
    Queues whose messages become records: to which topic, and where a record's key comes from (`group`, `none`, `attribute:NAME`,
    `json:/POINTER`). Messages that can never become records are put aside in the dead-letter queue by the function itself,
    so that they do not hold up their group.
  TEXT
  type = list(object({
    name                    = string
    queue_arn               = string
    dead_letter_url         = string
    dead_letter_arn         = string
    topic                   = string
    key                     = optional(string)
    batch_size              = optional(number, 10)
    batching_window_seconds = optional(number, 0)
    concurrency_max         = optional(number)
  }))
  default = []
}

variable "access" {
  description = <<-TEXT
    tokens: every request shows an access token. open-to-the-network: whoever reaches the function URL may do everything. By default tokens,
    but not with AWS_IAM: there IAM says who may call, and a signed request has no room for a token.
  TEXT
  type        = string
  default     = null
  validation {
    condition     = var.access == null ? true : contains(["tokens", "open-to-the-network"], var.access)
    error_message = "tokens or open-to-the-network."
  }
}

variable "settings" {
  description = "More environment variables of both functions, such as CARNAX_BODY_BYTES_MAX."
  type        = map(string)
  default     = {}
}

variable "vpc" {
  description = "Where the functions reach the metadata nodes; none where these have public names."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string) })
  default     = null
}

variable "log_retention_days" {
  type    = number
  default = 30
}

variable "maintenance_queue_arn" {
  description = "The queue that is told of maintenance jobs."
  type        = string
}

variable "maintenance_schedule" {
  description = "How often to look for maintenance jobs without being told, such as rate(1 hour); null where the queue suffices."
  type        = string
  default     = null
}
