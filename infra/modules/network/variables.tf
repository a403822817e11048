variable "name" {
  description = "First part of every name."
  type        = string
}

variable "cidr" {
  description = "Addresses of the network, /16 to /20."
  type        = string
  default     = "10.60.0.0/16"
}

variable "bucket_arn" {
  description = "The only bucket that can be reached from inside."
  type        = string
}

variable "client_cidrs" {
  description = "Who may reach frontends over HTTP: at least the network itself, where health checks come from."
  type        = list(string)
  default     = ["10.60.0.0/16"]
}

variable "sqs_endpoint" {
  description = "Whether processes inside the network reach SQS."
  type        = bool
  default     = false
}

variable "operator_access" {
  description = "Whether operators may open SSH sessions to metadata nodes, by IAM, through an EC2 Instance Connect endpoint."
  type        = bool
  default     = true
}
