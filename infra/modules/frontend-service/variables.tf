variable "name" {
  description = "First part of every name."
  type        = string
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  type = list(string)
}

variable "security_group_id" {
  type = string
}

variable "instance_type" {
  type    = string
  default = "t4g.small"
}

variable "architecture" {
  description = "arm64 or x86_64, as the instance type and the binaries have it."
  type        = string
  default     = "arm64"
}

variable "size_min" {
  description = "Frontends that always run; two survive the loss of a zone."
  type        = number
  default     = 2
}

variable "size_max" {
  type    = number
  default = 6
}

variable "metadata_addresses" {
  description = "HOST:PORT of the metadata nodes."
  type        = list(string)
}

variable "object_store" {
  description = "s3://bucket/prefix of the cluster."
  type        = string
}

variable "bucket_arn" {
  type = string
}

variable "log_objects_arn" {
  type = string
}

variable "artifact_objects_arn" {
  type = string
}

variable "artifacts" {
  description = "s3:// folder with carnax-frontend and SHA256SUMS."
  type        = string
}

variable "ingest_queue_arns" {
  description = "Queues that the frontends may poll."
  type        = list(string)
  default     = []
}

variable "access" {
  description = "tokens: every request shows an access token. open-to-the-network: whoever reaches the frontends may do everything."
  type        = string
  default     = "tokens"
  validation {
    condition     = contains(["tokens", "open-to-the-network"], var.access)
    error_message = "tokens or open-to-the-network."
  }
}

variable "settings" {
  description = "More environment variables, such as CARNAX_LINGER_MS."
  type        = map(string)
  default     = {}
}
