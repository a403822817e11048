variable "region" {
  description = "A region with at least three zones."
  type        = string
}

variable "name" {
  description = "First part of every name, and the tag `System`."
  type        = string
  default     = "carnax"
}

variable "bucket" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string
}

variable "carnax_version" {
  description = "Which version the machines install: the name under which `scripts/publish-artifacts.sh` uploaded it."
  type        = string
}

variable "architecture" {
  description = "arm64 or x86_64: of the instance types, the binaries and the Lambda package."
  type        = string
  default     = "arm64"
}

variable "lambda_zip" {
  description = "The package of the functions: a zip with the binary `bootstrap`."
  type        = string
}

variable "cidr" {
  description = "Addresses of the network, /16 to /20."
  type        = string
  default     = "10.60.0.0/16"
}

variable "client_cidrs" {
  description = "Networks outside this one whose clients reach the frontend service, by peering or a transit gateway."
  type        = list(string)
  default     = []
}

variable "operator_access" {
  description = "Whether operators may open SSH sessions to metadata nodes, by IAM."
  type        = bool
  default     = true
}

variable "metadata_instance_type" {
  type    = string
  default = "t4g.small"
}

variable "metadata_volume_gib" {
  type    = number
  default = 20
}

variable "frontend_service" {
  description = "Whether frontends run as machines behind a load balancer, beside the functions."
  type        = bool
  default     = false
}

variable "frontend_instance_type" {
  type    = string
  default = "t4g.small"
}

variable "frontend_size_min" {
  type    = number
  default = 2
}

variable "frontend_size_max" {
  type    = number
  default = 6
}

variable "queues" {
  description = "Queues whose messages become records, by name."
  type = map(object({
    fifo                    = bool
    topic                   = string
    key                     = optional(string)
    max_receive_count       = optional(number, 100)
    batch_size              = optional(number, 10)
    batching_window_seconds = optional(number, 0)
    concurrency_max         = optional(number)
  }))
  default = {}
}

variable "wakeup_queues" {
  description = "Names of queues that the metadata nodes tell of commits. The first brings an interface endpoint with it, which costs: docs/cost.md."
  type        = set(string)
  default     = []
}

variable "alarm_email" {
  description = "Who is told of alarms; empty for nobody."
  type        = string
  default     = ""
}

variable "log_retention_days" {
  type    = number
  default = 30
}
