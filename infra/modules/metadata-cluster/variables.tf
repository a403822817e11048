variable "name" {
  description = "First part of every name."
  type        = string
}

variable "vpc_id" {
  type = string
}

variable "subnets" {
  description = "One subnet a node, in different zones. Their order is the nodes' numbering: never change it."
  type        = list(object({ id = string, zone = string }))
  validation {
    condition     = length(var.subnets) == 3 && length(distinct(var.subnets[*].zone)) == 3
    error_message = "Three subnets in three zones: two nodes in one zone would lose the majority with it."
  }
}

variable "security_group_id" {
  type = string
}

variable "zone_name" {
  description = "Private DNS zone of the nodes' names."
  type        = string
  default     = "carnax.internal"
}

variable "instance_type" {
  type    = string
  default = "t4g.small"
}

variable "architecture" {
  description = "arm64 or x86_64, as the instance type and the binaries have it."
  type        = string
  default     = "arm64"
  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "arm64 or x86_64."
  }
}

variable "volume_gib" {
  description = "Size of each node's data volume. It holds the Raft log and the last snapshots."
  type        = number
  default     = 20
}

variable "final_snapshot" {
  description = "Whether a volume that is destroyed leaves a snapshot behind."
  type        = bool
  default     = true
}

variable "object_store" {
  description = "s3://bucket/prefix of the cluster."
  type        = string
}

variable "bucket_arn" {
  type = string
}

variable "log_objects_arn" {
  description = "The objects that nodes read and write."
  type        = string
}

variable "artifact_objects_arn" {
  description = "The objects that nodes install from."
  type        = string
}

variable "artifacts" {
  description = "s3:// folder with carnax-metadata-node, carnax-frontend, carnax and SHA256SUMS."
  type        = string
}

variable "maintenance_queue" {
  description = "The queue that the nodes tell of maintenance jobs; null where they cannot reach it."
  type        = object({ url = string, arn = string })
  default     = null
}

variable "wakeup_queue_arns" {
  description = "Queues that the nodes tell of commits."
  type        = list(string)
  default     = []
}
