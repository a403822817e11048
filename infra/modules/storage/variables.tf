variable "bucket" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string
}

variable "log_prefix" {
  description = "Prefix under which the cluster keeps its objects, without slashes at the ends."
  type        = string
  default     = "log"
  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+$", var.log_prefix)) && var.log_prefix != "artifacts"
    error_message = "One path component, and not the one that holds the binaries."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` may delete a bucket that still holds records. For throw-away environments only."
  type        = bool
  default     = false
}

variable "tls_only" {
  description = "Refuse requests without TLS. Off only where the endpoint has none."
  type        = bool
  default     = true
}
