variable "name" {
  description = "First part of every name."
  type        = string
}

variable "email" {
  description = "Who is told of alarms; empty for nobody. The address must confirm."
  type        = string
  default     = ""
}

variable "metadata_instances" {
  description = "Ids of the metadata nodes' instances, by node."
  type        = map(string)
  default     = {}
}

variable "functions" {
  description = "Names of the Lambda functions, by role."
  type        = map(string)
  default     = {}
}

variable "load_balancer" {
  description = "The dimensions of the load balancer's metrics, where there is one."
  type        = object({ load_balancer = string, target_group = string })
  default     = null
}
